package bench

import (
	"bytes"
	"strings"
	"testing"
	"time"
)

func TestEndpointRun(t *testing.T) {
	var progress bytes.Buffer
	r, err := RunEndpoint(t.Context(), EndpointOptions{Containers: 41, Tenants: 2, Idle: time.Millisecond, Progress: &progress})
	if err != nil {
		t.Fatal(err)
	}
	for what, d := range map[string]time.Duration{
		"launch": r.Launch, "inventory": r.Inventory, "alone": r.Alone.Stock, "among": r.Among.Stock, "inspect": r.Among.Inspect,
	} {
		if d <= 0 {
			t.Errorf("%s took %v", what, d)
		}
	}
	var table bytes.Buffer
	WriteEndpoint(&table, []EndpointResult{r})
	if want := "41 containers of 2 tenants"; !strings.Contains(table.String(), want) {
		t.Errorf("the table does not say %q:\n%s", want, table.String())
	}
}
