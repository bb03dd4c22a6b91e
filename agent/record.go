package agent

import (
	"encoding/json"
	"strconv"
	"time"

	"github.com/mesopool/mesopool/task"
)

// A record is written several times in a task's life, so what nearly all have is
// written here without reflection; savedRecord reads it.

// object is a JSON object that is being written. What is zero is left out.
type object struct {
	dst  []byte
	some bool // it has a member already
	err  error
}

func (o *object) open()  { o.dst, o.some = append(o.dst, '{'), false }
func (o *object) close() { o.dst, o.some = append(o.dst, '}'), true }

func (o *object) name(name string) {
	if o.some {
		o.dst = append(o.dst, ',')
	}
	o.some = true
	o.dst = append(append(append(o.dst, '"'), name...), `":`...)
}

func (o *object) text(name, value string) {
	if value != "" {
		o.name(name)
		o.string(value)
	}
}

func (o *object) string(value string) {
	for i := range len(value) {
		if b := value[i]; b < ' ' || b > '~' || b == '"' || b == '\\' {
			o.value(value)
			return
		}
	}
	o.dst = append(append(append(o.dst, '"'), value...), '"')
}

func (o *object) number(name string, value int) {
	if value != 0 {
		o.name(name)
		o.dst = strconv.AppendInt(o.dst, int64(value), 10)
	}
}

func (o *object) flag(name string, value bool) {
	if value {
		o.name(name)
		o.dst = append(o.dst, "true"...)
	}
}

func (o *object) time(name string, value time.Time) {
	if !value.IsZero() {
		o.name(name)
		o.dst = append(value.AppendFormat(append(o.dst, '"'), time.RFC3339Nano), '"')
	}
}

// member writes what few records have.
func (o *object) member(name string, value any, set bool) {
	if set {
		o.name(name)
		o.value(value)
	}
}

func (o *object) value(value any) {
	text, err := json.Marshal(value)
	if err != nil && o.err == nil {
		o.err = err
	}
	o.dst = append(o.dst, text...)
}

// appendRecord appends a record as savedRecord reads it.
func appendRecord(dst []byte, r *Record) ([]byte, error) {
	o := object{dst: dst}
	o.open()
	o.text("Name", r.Name)
	o.flag("Stop", r.Stop)
	o.text("Cause", string(r.Cause))
	o.text("Why", r.Why)
	o.member("Healthy", r.Healthy, r.Healthy != nil)
	o.member("Checked", r.Checked, r.Checked != nil)
	o.flag("Silent", r.Silent)
	o.member("Grace", r.Grace, r.Grace != nil)
	o.flag("Tried", r.Tried)
	o.number("State", int(r.State))
	o.time("Since", r.Since)
	o.container(r)
	o.history(r.History)
	o.number("Pending", len(r.Pending))
	if r.Spec.Hosted() {
		data := pendingData(r.Pending)
		o.member("Data", data, data != nil)
	}
	o.flag("Handed", r.Handed)
	o.time("Shut", r.Shut)
	o.member("Heard", r.Heard, r.Heard != nil)
	o.close()
	return o.dst, o.err
}

func (o *object) container(r *Record) {
	c := &r.Container
	if c.ID == "" {
		return
	}
	o.time("Started", c.Started)
	o.name("Container")
	o.open()
	o.text("ID", c.ID)
	o.addresses(c.Addresses)
	o.text("Network", c.Network)
	o.member("Ports", c.Ports, c.Ports != nil)
	o.text("PublishIP", c.PublishIP)
	o.close()
}

func (o *object) addresses(list []string) {
	if len(list) == 0 {
		return
	}
	o.name("Addresses")
	for i, address := range list {
		o.dst = append(o.dst, "[,"[min(i, 1)])
		o.string(address)
	}
	o.dst = append(o.dst, ']')
}

// history leaves out the container: it is the record's own, see full.
func (o *object) history(list []task.Status) {
	if len(list) == 0 {
		return
	}
	o.name("History")
	for i := range list {
		o.dst = append(o.dst, "[,"[min(i, 1)])
		o.status(&list[i])
	}
	o.dst = append(o.dst, ']')
}

func (o *object) status(s *task.Status) {
	o.open()
	o.number("State", int(s.State))
	o.number("Source", int(s.Source))
	o.text("Reason", string(s.Reason))
	o.text("Message", s.Message)
	o.time("Time", s.Time)
	if !s.UUID.IsZero() {
		o.text("UUID", s.UUID.String())
	}
	o.member("Healthy", s.Healthy, s.Healthy != nil)
	o.member("Check", s.Check, s.Check != nil)
	o.member("Origin", s.Origin, s.Origin != nil)
	o.member("Data", s.Data, s.Data != nil)
	o.close()
}
