package server

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"net/http"
	"slices"
	"strings"
	"time"

	"google.golang.org/protobuf/proto"

	"github.com/mesopool/mesopool/master"
	"github.com/mesopool/mesopool/master/authz"
	"github.com/mesopool/mesopool/mesos/convert"
	"github.com/mesopool/mesopool/mesos/mesosjson"
	mesosv1 "github.com/mesopool/mesopool/mesos/v1"
	masterv1 "github.com/mesopool/mesopool/mesos/v1/master"
	quotav1 "github.com/mesopool/mesopool/mesos/v1/quota"
	"github.com/mesopool/mesopool/resources"
	"github.com/mesopool/mesopool/store"
)

// settingPrefix is where what operators have set is kept, by kind and name.
const settingPrefix = "master/setting/"

func settingKey(k master.SavedKind, name string) string {
	return settingPrefix + string(k) + "/" + name
}

func settingOp(e master.Save) (store.Op, error) {
	op := store.Op{Key: settingKey(e.Kind, e.Name)}
	if e.Value == nil {
		return op, nil
	}
	var err error
	if op.Value, err = json.Marshal(e.Value); err != nil {
		return op, fmt.Errorf("server: save the %s of %s: %w", e.Kind, e.Name, err)
	}
	return op, nil
}

// loadSettings reads what operators set before the start.
func loadSettings(ctx context.Context, st store.Store) (master.Restore, error) {
	out := master.Restore{Weights: map[string]float64{}, Marks: map[string]master.Marks{}, Gone: map[string]time.Time{}}
	entries, err := st.List(ctx, settingPrefix)
	if err != nil {
		return out, fmt.Errorf("server: load the settings: %w", err)
	}
	for _, e := range entries {
		kind, name, _ := strings.Cut(strings.TrimPrefix(e.Key, settingPrefix), "/")
		if err := readSetting(&out, master.SavedKind(kind), name, e.Value); err != nil {
			return out, fmt.Errorf("server: the saved %s cannot be read: %w", e.Key, err)
		}
	}
	return out, nil
}

func readSetting(out *master.Restore, kind master.SavedKind, name string, text []byte) error {
	switch kind {
	case master.SavedQuota:
		var q master.Quota
		if err := json.Unmarshal(text, &q); err != nil {
			return err
		}
		out.Quotas = append(out.Quotas, q)
	case master.SavedWeight:
		var w float64
		if err := json.Unmarshal(text, &w); err != nil {
			return err
		}
		out.Weights[name] = w
	case master.SavedMarks:
		var m master.Marks
		if err := json.Unmarshal(text, &m); err != nil {
			return err
		}
		out.Marks[name] = m
	case master.SavedGone:
		var at time.Time
		if err := json.Unmarshal(text, &at); err != nil {
			return err
		}
		out.Gone[name] = at
	case master.SavedMaintenance:
		return json.Unmarshal(text, &out.Maintenance)
	default:
		return errors.New("it is of a kind that this master does not know; a newer one may have written it")
	}
	return nil
}

// set carries a setting out and says how it went in HTTP.
func (s *Server) set(ctx context.Context, cmd master.Command, overcommit int) error {
	err := s.do(ctx, cmd)
	s.snapshot.expire()
	switch {
	case errors.Is(err, master.ErrOvercommit):
		return failf(overcommit, "%v", err)
	case errors.Is(err, master.ErrInvalid):
		return failf(http.StatusBadRequest, "%v", err)
	case err != nil:
		return failf(http.StatusServiceUnavailable, "%v", err)
	}
	return nil
}

// operateSetting carries the calls about quota and weights out; taken is false
// for others.
func (s *Server) operateSetting(ctx context.Context, c *masterv1.Call) (taken bool, err error) {
	switch c.GetType() {
	case masterv1.Call_UPDATE_WEIGHTS:
		return true, s.updateWeights(ctx, c.UpdateWeights.GetWeightInfos())
	case masterv1.Call_UPDATE_QUOTA:
		cmd, err := quotaUpdate(c.UpdateQuota)
		if err != nil {
			return true, err
		}
		for i := range cmd.Quotas {
			if err := s.allowed(ctx, authz.UpdateQuota, cmd.Quotas[i].Role); err != nil {
				return true, err
			}
		}
		return true, s.set(ctx, cmd, http.StatusBadRequest)
	case masterv1.Call_SET_QUOTA:
		return true, s.setQuota(ctx, c.SetQuota.GetQuotaRequest())
	case masterv1.Call_REMOVE_QUOTA:
		return true, s.removeQuota(ctx, c.RemoveQuota.GetRole())
	}
	return false, nil
}

func (s *Server) updateWeights(ctx context.Context, list []*mesosv1.WeightInfo) error {
	cmd := master.SetWeights{Weights: map[string]float64{}}
	for _, w := range list {
		role := strings.TrimSpace(w.GetRole())
		if problem := roleProblem(role); problem != "" {
			return failf(http.StatusBadRequest, "Failed to validate update weights request: Invalid role '%s': %s", role, problem)
		}
		if _, twice := cmd.Weights[role]; twice {
			return failf(http.StatusBadRequest, "Failed to validate update weights request: role '%s' is there twice", role)
		}
		cmd.Weights[role] = w.GetWeight()
	}
	if len(cmd.Weights) > 0 {
		if err := s.allowed(ctx, authz.UpdateWeight, sortedKeys(cmd.Weights)...); err != nil {
			return err
		}
	}
	return s.set(ctx, cmd, http.StatusBadRequest)
}

// quotaUpdate reads UPDATE_QUOTA (master/quota.cpp, validate).
func quotaUpdate(in *masterv1.Call_UpdateQuota) (master.SetQuotas, error) {
	cmd := master.SetQuotas{Force: in.GetForce()}
	seen := map[string]bool{}
	for _, c := range in.GetQuotaConfigs() {
		q := master.Quota{Role: c.GetRole(), Limits: map[string]resources.Milli{}}
		problem := roleProblem(q.Role)
		if seen[q.Role] {
			problem = "the role is there twice"
		}
		seen[q.Role] = true
		for _, name := range sortedKeys(c.Guarantees) {
			amount, err := resources.FromFloat(c.Guarantees[name].GetValue())
			if err != nil {
				problem = fmt.Sprintf("guarantee of %s: %v", name, err)
			}
			q.Guarantees = q.Guarantees.Add(resources.NewScalars(resources.Scalar{Name: name, Amount: amount}))
		}
		for _, name := range sortedKeys(c.Limits) {
			amount, err := resources.FromFloat(c.Limits[name].GetValue())
			if err != nil {
				problem = fmt.Sprintf("limit of %s: %v", name, err)
			}
			q.Limits[name] = amount
		}
		if problem != "" {
			return cmd, failf(http.StatusBadRequest, "Invalid QuotaConfig for role '%s': %s", q.Role, problem)
		}
		cmd.Quotas = append(cmd.Quotas, q)
	}
	return cmd, nil
}

// setQuota is the older form: what is guaranteed is the limit too, and too much
// is a conflict.
func (s *Server) setQuota(ctx context.Context, in *quotav1.QuotaRequest) error {
	q := master.Quota{Role: in.GetRole(), Limits: map[string]resources.Milli{}}
	if problem := roleProblem(q.Role); problem != "" {
		return failf(http.StatusBadRequest, "Failed to validate set quota request: QuotaInfo with invalid role: %s", problem)
	}
	list, err := convert.Resources(in.GetGuarantee())
	if err != nil || len(in.GetGuarantee()) == 0 {
		return failf(http.StatusBadRequest, "Failed to validate set quota request: QuotaInfo with invalid or empty 'guarantee': %v", err)
	}
	for i := range list {
		if x := &list[i]; x.Kind != resources.KindScalar || len(x.Reservations) > 0 || x.Disk != nil || x.Revocable {
			return failf(http.StatusBadRequest, "Failed to validate set quota request: QuotaInfo must only include plain scalars, not %s", x)
		}
	}
	if err := s.allowed(ctx, authz.UpdateQuota, q.Role); err != nil {
		return err
	}
	q.Guarantees = list.Scalars()
	for _, x := range q.Guarantees {
		q.Limits[x.Name] = x.Amount
	}
	return s.set(ctx, master.SetQuotas{Quotas: []master.Quota{q}, Force: in.GetForce()}, http.StatusConflict)
}

func (s *Server) removeQuota(ctx context.Context, role string) error {
	if err := s.allowed(ctx, authz.UpdateQuota, role); err != nil {
		return err
	}
	return s.set(ctx, master.RemoveQuota{Role: role}, http.StatusBadRequest)
}

func quotaStatus(snap *master.Snapshot) *quotav1.QuotaStatus {
	out := &quotav1.QuotaStatus{}
	for i := range snap.Quotas {
		q := &snap.Quotas[i]
		config := &quotav1.QuotaConfig{Role: &q.Role, Guarantees: map[string]*mesosv1.Value_Scalar{}, Limits: map[string]*mesosv1.Value_Scalar{}}
		for _, x := range q.Guarantees {
			config.Guarantees[x.Name] = &mesosv1.Value_Scalar{Value: new(x.Amount.Float())}
		}
		for name, x := range q.Limits {
			config.Limits[name] = &mesosv1.Value_Scalar{Value: new(x.Float())}
		}
		out.Configs = append(out.Configs, config)
		out.Infos = append(out.Infos, &quotav1.QuotaInfo{Role: &q.Role, Guarantee: convert.ResourcesTo(q.Guarantees.Resources(), convert.Both)})
	}
	return out
}

func getQuota(_ *viewer, snap *master.Snapshot) (*masterv1.Response, error) {
	return &masterv1.Response{Type: masterv1.Response_GET_QUOTA.Enum(), GetQuota: &masterv1.Response_GetQuota{Status: quotaStatus(snap)}}, nil
}

func weightInfos(snap *master.Snapshot) (out []*mesosv1.WeightInfo) {
	for _, role := range slices.Sorted(maps.Keys(snap.Weights)) {
		out = append(out, &mesosv1.WeightInfo{Role: new(role), Weight: new(snap.Weights[role])})
	}
	return out
}

func getWeights(_ *viewer, snap *master.Snapshot) (*masterv1.Response, error) {
	return &masterv1.Response{Type: masterv1.Response_GET_WEIGHTS.Enum(), GetWeights: &masterv1.Response_GetWeights{WeightInfos: weightInfos(snap)}}, nil
}

// quota serves the older endpoint: GET, POST with a QuotaRequest, DELETE of
// /quota/<role>.
func (s *Server) quota(w http.ResponseWriter, r *http.Request) {
	var err error
	switch r.Method {
	case http.MethodGet, http.MethodHead, http.MethodOptions:
		s.read(func(j *jsonWriter, q *query) { j.element(quotaStatus(q.snap)) })(w, r)
		return
	case http.MethodPost:
		in := &quotav1.QuotaRequest{}
		if err = readJSON(w, r, in); err == nil {
			err = s.setQuota(r.Context(), in)
		}
	case http.MethodDelete:
		role, _ := strings.CutPrefix(plainPath(r.URL.Path), "/quota")
		err = s.removeQuota(r.Context(), strings.TrimPrefix(role, "/"))
	default:
		w.Header().Set("Allow", "GET, POST, DELETE")
		err = failf(http.StatusMethodNotAllowed, "Expecting one of { 'GET', 'POST', 'DELETE' }, but received '%s'", r.Method)
	}
	if err != nil {
		answerError(w, err)
		return
	}
	w.WriteHeader(http.StatusOK)
}

// weights serves the older endpoint: GET, and PUT of a list.
func (s *Server) weights(w http.ResponseWriter, r *http.Request) {
	var err error
	switch r.Method {
	case http.MethodGet, http.MethodHead, http.MethodOptions:
		s.read(func(j *jsonWriter, q *query) {
			j.array(func() {
				for _, x := range weightInfos(q.snap) {
					j.element(x)
				}
			})
		})(w, r)
		return
	case http.MethodPut:
		var text []byte
		in := &masterv1.Call_UpdateWeights{}
		if text, err = readAll(w, r); err == nil {
			err = mesosjson.Unmarshal(slices.Concat([]byte(`{"weight_infos":`), text, []byte("}")), in)
		}
		if err != nil {
			err = failf(http.StatusBadRequest, "Failed to parse update weights request JSON: %v", err)
			break
		}
		err = s.updateWeights(r.Context(), in.WeightInfos)
	default:
		w.Header().Set("Allow", "GET, PUT")
		err = failf(http.StatusMethodNotAllowed, "Expecting one of { 'GET', 'PUT' }, but received '%s'", r.Method)
	}
	if err != nil {
		answerError(w, err)
		return
	}
	w.WriteHeader(http.StatusOK)
}

func readJSON(w http.ResponseWriter, r *http.Request, to proto.Message) error {
	text, err := readAll(w, r)
	if err == nil {
		err = mesosjson.Unmarshal(text, to)
	}
	if err != nil {
		return failf(http.StatusBadRequest, "Failed to parse the request's JSON: %v", err)
	}
	return nil
}

// minAllocatable reads what a framework says makes an offer worth while.
func minAllocatable(f *mesosv1.FrameworkInfo) (map[string][]resources.Scalars, error) {
	var out map[string][]resources.Scalars
	for role, filter := range f.OfferFilters {
		if filter.GetMinAllocatableResources() == nil {
			continue
		}
		if out == nil {
			out = map[string][]resources.Scalars{}
		}
		out[role] = nil
		for _, q := range filter.MinAllocatableResources.Quantities {
			var least resources.Scalars
			for name, v := range q.Quantities {
				amount, err := resources.FromFloat(v.GetValue())
				if err != nil {
					return nil, fmt.Errorf("offer_filters of role %q: %s: %w", role, name, err)
				}
				least = least.Add(resources.NewScalars(resources.Scalar{Name: name, Amount: amount}))
			}
			out[role] = append(out[role], least)
		}
	}
	return out, nil
}
