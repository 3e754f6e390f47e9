// Package web answers what a daemon is asked over HTTP: /metrics, /healthz, /readyz and a page for people.
//
// It only tells, and nothing here changes anything. Whoever reaches the port may ask, so it tells no more than a stranger may know: host
// names, addresses, versions and counts. Names of files and processes it shows on a loopback address alone, and of these what
// every user of the machine can see in .lockfs. Requests are bounded in number, size and time; a page that takes a look at many locks
// is made once a second at most.
package web
