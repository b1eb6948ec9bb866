package runtime

// ColdReason is why a VM booted rather than being restored from a template.
type ColdReason string

// The reasons of a cold start. The empty one is that of a VM that was restored.
const (
	// ColdNoTemplate: none was made yet. [Runtime.MakeTemplate] makes one.
	ColdNoTemplate ColdReason = "no_template"
	// ColdOff: the caller does not want one.
	ColdOff ColdReason = "off"
	// ColdMember, ColdVolumes, ColdSystemd: such VMs are never restored.
	ColdMember  ColdReason = "member"
	ColdVolumes ColdReason = "volumes"
	ColdSystemd ColdReason = "systemd"
	// ColdDriver: driver or host cannot restore such a VM.
	ColdDriver ColdReason = "driver"
	// ColdNoRoom: the host's disk has no room for a template, or for what a
	// restored VM needs beside it.
	ColdNoRoom ColdReason = "no_room"
	// ColdNoMemory: the host had no memory, or no process, for the restored VM.
	ColdNoMemory ColdReason = "no_memory"
	// ColdNotMade: making the template failed, or is under way.
	ColdNotMade ColdReason = "not_made"
	// ColdModified: the template is not what was made, and was discarded.
	ColdModified ColdReason = "modified"
	// ColdFailed: the restored VM did not answer, and the template was discarded.
	ColdFailed ColdReason = "failed"
)

// coldSentences say the reasons to people. Where there is none, or details follow
// it, the details do.
var coldSentences = map[ColdReason]string{
	ColdNoTemplate: "there is no template yet",
	ColdOff:        "templates are switched off",
	ColdMember:     "a VM of a network of VMs has no template",
	ColdVolumes:    "a VM with volumes has no template",
	ColdSystemd:    "systemd keeps the host name it booted with, so a snapshot cannot be renamed",
	ColdDriver:     "VMs cannot be restored here",
	ColdNoRoom:     "there is no room for a template",
	ColdNoMemory:   "the host had no memory for the restored VM",
	ColdNotMade:    "there is no template",
	ColdFailed:     "the VM could not be restored from its template",
}

// Cold is why a VM booted rather than being restored; the zero value is that of
// one that was restored.
type Cold struct {
	Reason ColdReason `json:"reason,omitempty"`
	Detail string     `json:"detail,omitempty"`
}

var _ error = Cold{}

// Error says it in a sentence, for people.
func (c Cold) Error() string {
	sentence := coldSentences[c.Reason]
	if sentence != "" && c.Detail != "" {
		return sentence + ": " + c.Detail
	}
	return sentence + c.Detail
}

// WantsTemplate says whether MakeTemplate would make the next start of such a VM
// faster.
func (c Cold) WantsTemplate() bool { return c.Reason == ColdNoTemplate }
