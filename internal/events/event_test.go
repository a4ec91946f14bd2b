package events

import "testing"

func TestKinds(t *testing.T) {
	for name, want := range map[string]struct {
		kind         Kind
		ends, logged bool
	}{
		JobProgress:   {Progress, false, false},
		JobCompleted:  {Completed, true, true},
		JobFailed:     {Failed, true, true},
		JobStalled:    {Message, false, true},
		"x":           {Message, false, true},
		"progress":    {Message, false, true},
		"Job_failed":  {Message, false, true},
		"job_failed2": {Message, false, true},
	} {
		if kind := KindOf(name); kind != want.kind || kind.Ends() != want.ends || kind.Logged() != want.logged {
			t.Errorf("%s: kind %v, ends %v, logged %v", name, kind, kind.Ends(), kind.Logged())
		}
	}
}
