package web

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promhttp"
	"golang.org/x/net/netutil"
)

// Limits of what is asked.
const (
	maxConnections = 256
	maxHeader      = 16 << 10
	maxGatherings  = 4 // of metrics at once
	headerTime     = 5 * time.Second
	writeTime      = 20 * time.Second
	idleTime       = time.Minute
	closeTime      = time.Second // for answers under way when the server ends
)

// Daemon is what is told of. Its methods are called by several goroutines, from the start of the daemon to its end.
type Daemon interface {
	// Healthy returns nil while all parts of the daemon answer. It takes no lock.
	Healthy() error
	// Ready returns nil while the host can grant locks, else why it cannot.
	Ready() error
	// Page returns what the page shows; with names of files and processes, or without.
	Page(names bool) *Page
}

// Server answers requests.
type Server struct {
	http  http.Server
	ended chan error
	page  lastPage
}

// Serve answers the requests to a listener until Close.
func Serve(l net.Listener, d Daemon, figures prometheus.Gatherer, log *slog.Logger) *Server {
	names := local(l.Addr())
	s := &Server{ended: make(chan error, 1), page: lastPage{make: func() *Page { return d.Page(names) }}}
	paths := http.NewServeMux()
	paths.Handle("GET /metrics", promhttp.HandlerFor(figures, promhttp.HandlerOpts{MaxRequestsInFlight: maxGatherings}))
	paths.HandleFunc("GET /healthz", func(w http.ResponseWriter, _ *http.Request) { tell(w, d.Healthy()) })
	paths.HandleFunc("GET /readyz", func(w http.ResponseWriter, _ *http.Request) { tell(w, d.Ready()) })
	paths.Handle("GET /{$}", &s.page)
	s.http = http.Server{
		Handler: guard(paths, names), MaxHeaderBytes: maxHeader, ReadHeaderTimeout: headerTime, ReadTimeout: headerTime,
		WriteTimeout: writeTime, IdleTimeout: idleTime, ErrorLog: slog.NewLogLogger(log.Handler(), slog.LevelDebug),
	}
	go func() { s.ended <- s.http.Serve(netutil.LimitListener(l, maxConnections)) }()
	return s
}

// Close ends the server, after the answers under way.
func (s *Server) Close() error {
	ctx, cancel := context.WithTimeout(context.Background(), closeTime)
	defer cancel()
	err := s.http.Shutdown(ctx)
	if errors.Is(err, context.DeadlineExceeded) {
		err = s.http.Close()
	}
	if serving := <-s.ended; !errors.Is(serving, http.ErrServerClosed) {
		err = errors.Join(err, serving)
	}
	return err
}

// tell answers a question that has the answers yes and no, with the reason.
func tell(w http.ResponseWriter, err error) {
	if err != nil {
		w.WriteHeader(http.StatusServiceUnavailable)
		fmt.Fprintln(w, err)
		return
	}
	fmt.Fprintln(w, "ok")
}

// guard looks at a request before anybody else does. A browser may be led to a loopback address by a page from elsewhere, under a
// name of that page's own choice: where names are shown, only requests to an address or to localhost are answered.
func guard(next http.Handler, names bool) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		h := w.Header()
		h.Set("Content-Type", "text/plain; charset=utf-8")
		h.Set("X-Content-Type-Options", "nosniff")
		h.Set("Content-Security-Policy", "default-src 'none'; style-src 'unsafe-inline'; frame-ancestors 'none'")
		h.Set("Cache-Control", "no-store")
		switch {
		case names && !plainHost(r.Host):
			http.Error(w, "ask under an address, or as localhost", http.StatusMisdirectedRequest)
		case r.ContentLength != 0:
			http.Error(w, "no body is wanted", http.StatusRequestEntityTooLarge)
		default:
			next.ServeHTTP(w, r)
		}
	})
}

// plainHost reports whether the Host of a request is an address or localhost.
func plainHost(host string) bool {
	if name, _, err := net.SplitHostPort(host); err == nil {
		host = name
	}
	return host == "localhost" || net.ParseIP(host) != nil
}

// local reports whether an address is reached from this machine alone.
func local(a net.Addr) bool {
	tcp, ok := a.(*net.TCPAddr)
	return ok && tcp.IP.IsLoopback()
}
