// Package cert is the certificates of a cluster's hosts and the key of its gossip: it makes them (`lockfs cert`,
// `lockfs keygen`), and reads them for a daemon, which follows them on disk, so that a renewed one counts without a restart.
//
//	lockfs cert ca         ca.pem, ca-key.pem        the key stays with the operator
//	lockfs cert host NAME  NAME.pem, NAME-key.pem    signed by it, for NAME's addresses
//	Load(Files) ─► Source ─► tls.Config              asked at every handshake
//
// A host shows one certificate whether it dials or is dialed, so it must permit both uses (server and client
// authentication), and be valid for the address that others dial. Who has a certificate of the CA is let in: a CA is for one
// cluster alone.
package cert
