package admin

import (
	"net/http"
	"runtime"
	"time"

	"starling/frontend/mailstore"
)

// Node is what GET /node answers.
type Node struct {
	Hostname  string    `json:"hostname"`
	Version   string    `json:"version"`
	GoVersion string    `json:"go_version"`
	Started   time.Time `json:"started"`
	Readiness
	*Running
}

// Running is what only a node has that serves, or has.
type Running struct {
	IMAP      IMAP             `json:"imap"`
	LMTP      LMTP             `json:"lmtp"`
	NATS      Bus              `json:"nats"`
	Mailstore mailstore.Status `json:"mailstore"`
}

// IMAP is what the node serves by IMAP.
type IMAP struct {
	Sessions map[string]int `json:"sessions"` // by state
}

// LMTP is what the node serves by LMTP.
type LMTP struct {
	Sessions int `json:"sessions"`
}

func (s *Server) node(w http.ResponseWriter, _ *http.Request) {
	n := Node{
		Hostname: s.cfg.Hostname, Version: s.cfg.Version, GoVersion: runtime.Version(), Started: s.started,
		Readiness: s.cfg.Health.Readiness(),
	}
	if p := s.parts.Load(); p != nil {
		n.Running = &Running{
			IMAP: IMAP{Sessions: p.Sessions()}, LMTP: LMTP{Sessions: p.Deliveries()},
			NATS: p.Bus(), Mailstore: p.Store.Status(),
		}
	}
	answer(w, http.StatusOK, n)
}
