package events

import (
	"strings"
	"testing"
)

func TestWarnings(t *testing.T) {
	progress := func(data string) string { return `{"userId":"u","event":"job_progress","data":` + data + `}` }
	own := func(name string) string { return `{"userId":"u","event":"` + name + `","data":{"progress":101}}` }
	for _, tc := range []struct {
		behaviour, code, field, says string
		bodies                       []string
	}{
		{"progress from 0 to 100 is as it should be", "", "", "", []string{
			progress(`{"jobId":1,"progress":0}`), progress(`{"jobId":1,"progress":100}`), progress(`{"jobId":1,"progress":0.5}`),
			progress(`{"jobId":1,"progress":1e2}`), progress(`{"jobId":1,"progress":-0}`), progress(`{"jobId":1,"progress":100.0}`),
			progress(`{"jobId":1,"progress":101,"progress":99}`)}},
		{"progress may be left out, or be in another place", "", "", "", []string{
			progress(`{"jobId":1}`), progress(`{"jobId":1,"Progress":101}`), progress(`{"jobId":1,"a":{"progress":101}}`)}},
		{"progress that is no number from 0 to 100 is told", WarnProgressOutOfRange, "data.progress", "0 to 100", []string{
			progress(`{"jobId":1,"progress":101}`), progress(`{"jobId":1,"progress":100.001}`), progress(`{"jobId":1,"progress":-1}`),
			progress(`{"jobId":1,"progress":-0.1}`), progress(`{"jobId":1,"progress":1e999}`), progress(`{"jobId":1,"progress":"50"}`),
			progress(`{"jobId":1,"progress":null}`), progress(`{"jobId":1,"progress":true}`), progress(`{"jobId":1,"progress":[50]}`),
			progress(`{"jobId":1,"progress":{}}`), progress(`{"jobId":1,"progress":99,"progress":101}`), progress(`{"jobId":1,"pro\u0067ress":101}`)}},
		{"the data of other events is not looked into", "", "", "", []string{
			`{"userId":"u","event":"job_completed","data":{"jobId":1,"progress":101}}`,
			`{"userId":"u","event":"x","kind":"progress","jobId":1,"data":{"progress":101}}`,
			own("x"), own("progress")}},
		{"names of one's own are as they should be", "", "", "", []string{
			own("order_created"), own("jobs"), own("job"), own("j"), own("job_started"), own("job_cancelled"), own("job_deleted"), own("task_completed"),
			own("import_failed"), own("progress"), own("completed"), own("failed"), own("job_paused"), own("job_progress_page"),
			own("A" + strings.Repeat("x", 63)), own("a_.:-9")}},
		{"a slip of job_progress is told", WarnEventNameUnusual, "event", "job_progress", []string{
			own("job_progres"), own("jobProgress"), own("job-progress"), own("JOB_PROGRESS"), own("job.progress"), own("job_porgress"), own("job_progresss"), //nolint:misspell // of course
			own("jobs_progress"), own("job_process"), own("job_progress2"), own("jobprogressed")}},
		{"a slip of job_completed is told", WarnEventNameUnusual, "event", "job_completed", []string{
			own("job_complete"), own("jobCompleted"), own("job-completed"), own("job:completed"), own("job_compleated"), own("jobs_completed"),
			own("job_done"), own("jobDone"), own("job_finished"), own("job-finish"), own("job_success"), own("job_succeeded"), own("job_completion")}},
		{"a slip of job_failed is told", WarnEventNameUnusual, "event", "job_failed", []string{
			own("job_fail"), own("jobFailed"), own("job_faild"), own("job_fails"), own("job_error"), own("job_errored"), own("JobError"), own("job_failure")}},
		{"a name that comes with a kind is meant", "", "", "", []string{
			`{"userId":"u","event":"job_done","kind":"completed","jobId":1,"data":1}`,
			`{"userId":"u","event":"jobProgress","kind":"progress","jobId":1,"data":{"progress":101}}`}},
	} {
		for _, body := range tc.bodies {
			_, warnings, err := Parse([]byte(body))
			if err != nil {
				t.Errorf("%s:\n%s: %v", tc.behaviour, body, err)
				continue
			}
			if tc.code == "" {
				if warnings != nil {
					t.Errorf("%s:\n%s: %v", tc.behaviour, body, warnings)
				}
				continue
			}
			if len(warnings) != 1 || warnings[0].Code != tc.code || warnings[0].Field != tc.field || !strings.Contains(warnings[0].Detail, tc.says) {
				t.Errorf("%s:\n%s: %v", tc.behaviour, body, warnings)
			}
		}
	}
}

func TestTheItemsOfABatchHaveWarningsOfTheirOwn(t *testing.T) {
	items, err := ParseBatch([]byte(`{"events":[
		{"userId":1,"event":"job_progress","data":{"jobId":1,"progress":101}},
		{"userId":1,"event":"job_progress","data":{"jobId":1,"progress":99}},
		{"userId":1,"event":"job_done"},
		{"userId":1,"event":"job_done","data":1}]}`), 10, 1000)
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, item := range items {
		codes := ""
		for _, warning := range item.Warnings {
			codes += warning.Code
		}
		got = append(got, codes)
	}
	if want := WarnProgressOutOfRange + ",,," + WarnEventNameUnusual; strings.Join(got, ",") != want {
		t.Errorf("got %q, want %s", got, want)
	}
}

func TestANameOfOnesOwnCostsNoMoreForBeingLookedAt(t *testing.T) {
	for _, name := range []string{"invoice_ready", "job_started"} { // one of another length, and one of the same
		body := []byte(`{"userId":"u","event":"` + name + `","data":{"progress":42}}`)
		if n := testing.AllocsPerRun(100, func() {
			if _, warnings, err := Parse(body); err != nil || warnings != nil {
				t.Fatal(warnings, err)
			}
		}); n > 2 { // the user's id and the name
			t.Errorf("%s: %v allocations", name, n)
		}
	}
}

func BenchmarkParseOwnName(b *testing.B) {
	body := []byte(`{"userId":"user-4711","event":"job_started","data":{"id":"7c1f1f0e-9a52-4a57-8f7d-1f6d7e7e0b11","message":"rendering page 42 of 100"}}`)
	b.ReportAllocs()
	for b.Loop() {
		if _, _, err := Parse(body); err != nil {
			b.Fatal(err)
		}
	}
}
