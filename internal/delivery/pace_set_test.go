package delivery

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"
)

func TestPaceSet(t *testing.T) {
	rnd := rand.New(rand.NewPCG(1, 2))
	for _, jobs := range []int{1, fewPaces, fewPaces + 1, 100} {
		var set paceSet
		want := make(map[string]*pace)
		for range 5000 {
			job := fmt.Sprint(rnd.IntN(jobs))
			if p := set.get(job); p != want[job] {
				t.Fatalf("of %d jobs: %q is %v, want %v", jobs, job, p, want[job])
			} else if p == nil {
				p = &pace{job: job}
				set.add(p)
				want[job] = p
			} else {
				set.remove(p)
				delete(want, job)
			}
			if all := slices.Collect(set.all()); len(all) != len(want) || set.empty() != (len(want) == 0) {
				t.Fatalf("of %d jobs: %d paces, want %d; empty %v", jobs, len(all), len(want), set.empty())
			}
		}
	}
}
