package network

// Report is what a guest did with its network.
type Report struct {
	Metrics Metrics  `json:"metrics"`
	Denied  []Denied `json:"denied"`
	// More is how many further attempts were denied that Denied does not list.
	More int64 `json:"more,omitempty"`
}

// Report is what the guest has done so far.
func (n *Network) Report() *Report {
	r := &Report{Metrics: n.Metrics()}
	r.Denied, r.More = n.Denied()
	return r
}

// Since is what r has that before, an earlier report of the same guest, has not.
func (r *Report) Since(before *Report) *Report {
	if r == nil || before == nil {
		return r
	}
	d := &Report{Metrics: r.Metrics.Sub(before.Metrics), More: r.More - before.More}
	for i, denied := range r.Denied {
		if i < len(before.Denied) { // attempts keep their place
			denied.Count -= before.Denied[i].Count
		}
		if denied.Count > 0 {
			d.Denied = append(d.Denied, denied)
		}
	}
	return d
}
