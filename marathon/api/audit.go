package api

import (
	"fmt"
	"net/http"
	"strconv"
	"strings"

	"github.com/mesopool/mesopool/marathon"
)

// mostAudit is how many entries an answer has without a word of it.
const mostAudit = 100

// audit lists what users have done, the newest first.
func (a *API) audit(w http.ResponseWriter, r *http.Request) error {
	q, limit := r.URL.Query(), mostAudit
	if text := q.Get("limit"); text != "" {
		n, err := strconv.Atoi(text)
		if err != nil || n < 1 {
			return &status{http.StatusBadRequest, fmt.Sprintf("the parameter limit is %q; it must be a number above 0", text)}
		}
		limit = n
	}
	app := ""
	if id := strings.Trim(q.Get("id"), "/"); id != "" {
		app = "/" + id
	}
	list, err := see(r, a, func(c *marathon.Core) []marathon.AuditEntry { return c.Audit(app, limit) })
	if err != nil {
		return err
	}
	return answer(w, http.StatusOK, map[string]any{"audit": list})
}
