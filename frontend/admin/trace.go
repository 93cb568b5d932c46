package admin

import (
	"errors"
	"fmt"
	"net/http"
	"time"

	"go.uber.org/zap"

	"starling/metadata"
)

// How long the protocol of an account is logged.
const (
	traceFor  = 10 * time.Minute
	mostTrace = 24 * time.Hour
)

// trace has the protocol of an account's sessions logged for a time, on all nodes.
func (s *Server) trace(w http.ResponseWriter, r *http.Request) {
	length := traceFor
	if text := r.URL.Query().Get("for"); text != "" {
		var err error
		if length, err = time.ParseDuration(text); err != nil || length <= 0 || length > mostTrace {
			problem(w, http.StatusBadRequest, fmt.Sprintf("for: is %q; want a duration of more than 0s and at most %v, such as %v", text, mostTrace, traceFor))
			return
		}
	}
	until := time.Now().Add(length).UTC().Truncate(time.Second)
	if s.setTrace(w, r, until) {
		answer(w, http.StatusOK, struct {
			Account string    `json:"account"`
			Until   time.Time `json:"until"`
		}{r.PathValue("name"), until})
	}
}

// untrace stops that.
func (s *Server) untrace(w http.ResponseWriter, r *http.Request) {
	if s.setTrace(w, r, time.Time{}) {
		w.WriteHeader(http.StatusNoContent)
	}
}

// setTrace reports whether it could be done; if not, it has answered why.
func (s *Server) setTrace(w http.ResponseWriter, r *http.Request, until time.Time) bool {
	p := s.parts.Load()
	if p == nil {
		problem(w, http.StatusServiceUnavailable, "the node is starting")
		return false
	}
	name := r.PathValue("name")
	switch err := p.Store.SetTrace(r.Context(), name, until); {
	case err == nil:
		s.cfg.Log.Info("protocol trace", zap.String("account", name), zap.Time("until", until), zap.String("remote", r.RemoteAddr))
		return true
	case errors.Is(err, metadata.ErrNotFound):
		problem(w, http.StatusNotFound, "there is no such account")
	case errors.Is(err, metadata.ErrUnavailable):
		problem(w, http.StatusServiceUnavailable, err.Error())
	default:
		s.cfg.Log.Error("protocol trace not set", zap.String("account", name), zap.Error(err))
		problem(w, http.StatusInternalServerError, "see the node's log")
	}
	return false
}
