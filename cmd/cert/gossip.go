package cert

import (
	"crypto/rand"
	"encoding/base64"
	"fmt"
	"strings"
)

// keyBytes is the length of new gossip keys: AES-256.
const keyBytes = 32

// NewGossipKey returns a random key as it is written to files.
func NewGossipKey() string {
	key := make([]byte, keyBytes)
	rand.Read(key) // never fails
	return base64.StdEncoding.EncodeToString(key) + "\n"
}

// ReadGossipKey reads a file with a key in base64.
func ReadGossipKey(name string) ([]byte, error) {
	text, err := ReadSecret(name)
	if err != nil {
		return nil, err
	}
	key, err := base64.StdEncoding.DecodeString(strings.TrimSpace(string(text)))
	if err != nil {
		return nil, fmt.Errorf("%s is not base64; lockfs keygen makes a key", name)
	}
	switch len(key) {
	case 16, 24, 32:
		return key, nil
	}
	return nil, fmt.Errorf("%s holds a key of %d bytes, want 16, 24 or 32; lockfs keygen makes one", name, len(key))
}
