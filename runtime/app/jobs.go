package app

import (
	"context"
	"errors"
	"net/http"
	"slices"
	"strconv"
	"sync"
	"time"
)

// Job is something that takes long. It goes on when the page is closed or loaded
// again. After its end it stays in the list until a user dismisses it.
type Job struct {
	ID      string    `json:"id"`
	Kind    string    `json:"kind"`    // "create" or "pull"
	Subject string    `json:"subject"` // the name of the desktop, or the reference of the image
	Began   time.Time `json:"began"`
	State   string    `json:"state"` // "running", "done", "failed" or "cancelled"
	Step    string    `json:"step,omitempty"`
	Done    int64     `json:"done"`
	Total   int64     `json:"total"` // 0 where that is unknown
	// Result is the identifier of what came of it.
	Result string `json:"result,omitempty"`
	Error  string `json:"error,omitempty"`

	cancel context.CancelFunc
}

// jobs are those of this process.
type jobs struct {
	changed func()

	mu   sync.Mutex
	last int
	all  []*Job
}

var errNoJob = errors.New("no such job")

// progressPause is the least time between two reports of progress.
const progressPause = 100 * time.Millisecond

// maxJobs bounds the ended jobs that were not dismissed.
const maxJobs = 50

// start runs work as a job, until it ends or is cancelled.
func (j *jobs) start(ctx context.Context, wg *sync.WaitGroup, kind, subject string, work func(context.Context, Progress) (result string, err error)) *Job {
	ctx, cancel := context.WithCancel(ctx)
	j.mu.Lock()
	j.last++
	job := &Job{ID: strconv.Itoa(j.last), Kind: kind, Subject: subject, Began: time.Now().UTC(), State: "running", cancel: cancel}
	j.all = append(j.all, job)
	if len(j.all) > maxJobs {
		if i := slices.IndexFunc(j.all, func(o *Job) bool { return o.State != "running" }); i >= 0 {
			j.all = slices.Delete(j.all, i, i+1)
		}
	}
	copied := *job
	j.mu.Unlock()
	j.changed()
	var told time.Time
	progress := func(step string, done, total int64) {
		j.mu.Lock()
		quiet := job.Step == step && time.Since(told) < progressPause
		job.Step, job.Done, job.Total = step, done, total
		if !quiet {
			told = time.Now()
		}
		j.mu.Unlock()
		if !quiet {
			j.changed()
		}
	}
	wg.Go(func() {
		defer cancel()
		result, err := work(ctx, progress)
		j.mu.Lock()
		switch {
		case err == nil:
			job.State, job.Result = "done", result
		case ctx.Err() != nil:
			job.State = "cancelled"
		default:
			job.State, job.Error = "failed", oneLine(err)
		}
		j.mu.Unlock()
		j.changed()
	})
	return &copied
}

// list copies the jobs, the oldest first.
func (j *jobs) list() []Job {
	j.mu.Lock()
	defer j.mu.Unlock()
	all := make([]Job, len(j.all))
	for i, job := range j.all {
		all[i] = *job
	}
	return all
}

// idle says whether no job runs.
func (j *jobs) idle() bool {
	return !slices.ContainsFunc(j.list(), func(job Job) bool { return job.State == "running" })
}

// drop cancels a job that runs, and forgets one that has ended.
func (j *jobs) drop(id string) error {
	j.mu.Lock()
	i := slices.IndexFunc(j.all, func(job *Job) bool { return job.ID == id })
	if i < 0 {
		j.mu.Unlock()
		return errNoJob
	}
	if j.all[i].State == "running" {
		j.all[i].cancel()
	} else {
		j.all = slices.Delete(j.all, i, i+1)
	}
	j.mu.Unlock()
	j.changed()
	return nil
}

func (s *server) jobRoutes() {
	s.mux.HandleFunc("DELETE /api/jobs/{id}", answer(func(r *http.Request, _ none) (any, error) {
		return nil, s.jobs.drop(r.PathValue("id"))
	}))
}
