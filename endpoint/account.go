package endpoint

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"
	"time"

	"golang.org/x/crypto/ssh"

	"github.com/mesopool/mesopool/internal/uuid"
)

// Account is a tenant. It is kept in a file that the operator's commands write
// and a running endpoint reads again whenever it changed.
type Account struct {
	Login    string    `json:"login"`
	UUID     string    `json:"id"`
	Email    string    `json:"email,omitempty"`
	Created  time.Time `json:"created"`
	Disabled bool      `json:"disabled,omitempty"`

	// Unapproved accounts may look and not provision.
	Unapproved bool `json:"unapproved,omitempty"`

	// Keys are SSH public keys: of the Triton tools' certificates, and of
	// CloudAPI's signatures.
	Keys []Key `json:"keys,omitempty"`

	Limits Limits `json:"limits,omitzero"`

	// Images are names of images of the backend that the operator lets the
	// account use; "*" is all of them.
	Images []string `json:"images,omitempty"`
}

// Key is what the account is called towards a backend: an account of the same
// login that is made later is another one.
func (a *Account) Key() string { return a.Login + "-" + a.UUID[:8] }

// Limits bound what an account has at once; 0 is no bound.
type Limits struct {
	Machines int `json:"machines,omitempty"`
	RAM      int `json:"ram,omitempty"`   // MiB
	Quota    int `json:"quota,omitempty"` // GiB of disk
}

// Key is an SSH public key.
type Key struct {
	Name        string    `json:"name"`
	Fingerprint string    `json:"fingerprint"` // MD5 with colons
	Key         string    `json:"key"`         // as in authorized_keys
	Created     time.Time `json:"created"`
}

// MaxKeys bounds the keys of an account.
const MaxKeys = 100

// ParseKey reads a line of authorized_keys. An empty name becomes the comment,
// or the fingerprint.
func ParseKey(name, line string) (Key, error) {
	pub, comment, _, rest, err := ssh.ParseAuthorizedKey([]byte(line))
	if err != nil {
		return Key{}, fmt.Errorf("this is no SSH public key: %w", err)
	}
	if len(strings.TrimSpace(string(rest))) > 0 {
		return Key{}, errors.New("more than one SSH public key")
	}
	k := Key{Fingerprint: ssh.FingerprintLegacyMD5(pub), Key: strings.TrimSpace(string(ssh.MarshalAuthorizedKey(pub))), Created: time.Now().UTC()}
	for _, n := range []string{name, comment, k.Fingerprint} {
		if k.Name == "" {
			k.Name = n
		}
	}
	return k, nil
}

// Public returns the key itself.
func (k *Key) Public() (ssh.PublicKey, error) {
	pub, _, _, _, err := ssh.ParseAuthorizedKey([]byte(k.Key))
	return pub, err
}

// FindKey returns the key of that name or fingerprint (MD5 or SHA256 form).
func (a *Account) FindKey(id string) (ssh.PublicKey, bool) {
	for i := range a.Keys {
		k := &a.Keys[i]
		pub, err := k.Public()
		if err == nil && (k.Name == id || k.Fingerprint == id || ssh.FingerprintSHA256(pub) == id) {
			return pub, true
		}
	}
	return nil, false
}

// Accounts is the folder of accounts. It may be used by several processes.
type Accounts struct {
	dir string

	changing sync.Mutex // one change at a time

	mu    sync.Mutex
	cache map[string]cached
}

type cached struct {
	account *Account
	file    fs.FileInfo
}

// same says whether the file is still the one that was read: changes replace it.
func (c *cached) same(now fs.FileInfo) bool {
	return os.SameFile(c.file, now) && c.file.ModTime().Equal(now.ModTime()) && c.file.Size() == now.Size()
}

// ErrNoAccount says that there is no such account.
var ErrNoAccount = errors.New("no such account")

// OpenAccounts uses the folder accounts in dir, made when it is not there.
func OpenAccounts(dir string) (*Accounts, error) {
	dir = filepath.Join(dir, "accounts")
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, fmt.Errorf("endpoint: accounts: %w", err)
	}
	return &Accounts{dir: dir, cache: map[string]cached{}}, nil
}

// A login is part of names of networks and containers, and of host names.
var loginForm = regexp.MustCompile(`^[a-z][a-z0-9-]{0,30}$`)

// CheckLogin says what is wrong with a login.
func CheckLogin(login string) error {
	if !loginForm.MatchString(login) {
		return fmt.Errorf("%q is no login: it must begin with a letter and have at most 31 lower-case letters, digits and dashes", login)
	}
	return nil
}

// Dir is the folder of one account's files.
func (a *Accounts) Dir(login string) string { return filepath.Join(a.dir, login) }

func (a *Accounts) file(login string) string { return filepath.Join(a.Dir(login), "account.json") }

// Get returns an account, which must not be changed, or ErrNoAccount.
func (a *Accounts) Get(login string) (*Account, error) {
	if CheckLogin(login) != nil {
		return nil, ErrNoAccount
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	info, err := os.Stat(a.file(login))
	if errors.Is(err, fs.ErrNotExist) {
		delete(a.cache, login)
		return nil, ErrNoAccount
	}
	if err != nil {
		return nil, fmt.Errorf("endpoint: account %s: %w", login, err)
	}
	if c, known := a.cache[login]; known && c.same(info) {
		return c.account, nil
	}
	acct, err := a.read(login)
	if err != nil {
		return nil, err
	}
	a.cache[login] = cached{acct, info}
	return acct, nil
}

func (a *Accounts) read(login string) (*Account, error) {
	text, err := os.ReadFile(a.file(login))
	if err != nil {
		return nil, fmt.Errorf("endpoint: account %s: %w", login, err)
	}
	acct := &Account{}
	if err := json.Unmarshal(text, acct); err != nil || acct.Login != login || len(acct.UUID) != 36 {
		return nil, fmt.Errorf("endpoint: the file %s is damaged (%v); mend it, or remove the account", a.file(login), err)
	}
	return acct, nil
}

// List returns all accounts by login.
func (a *Accounts) List() ([]*Account, error) {
	entries, err := os.ReadDir(a.dir)
	if err != nil {
		return nil, fmt.Errorf("endpoint: accounts: %w", err)
	}
	var all []*Account
	for _, e := range entries {
		acct, err := a.Get(e.Name())
		if errors.Is(err, ErrNoAccount) {
			continue
		}
		if err != nil {
			return nil, err
		}
		all = append(all, acct)
	}
	return all, nil
}

// Add makes an account; one that exists is an error.
func (a *Accounts) Add(login string) (*Account, error) {
	if err := CheckLogin(login); err != nil {
		return nil, err
	}
	a.changing.Lock()
	defer a.changing.Unlock()
	if _, err := a.Get(login); err == nil {
		return nil, fmt.Errorf("the account %s exists already", login)
	}
	acct := &Account{Login: login, UUID: uuid.New().String(), Created: time.Now().UTC()}
	return acct, a.write(acct)
}

// Change changes an account: change gets a copy.
func (a *Accounts) Change(login string, change func(*Account) error) (*Account, error) {
	a.changing.Lock()
	defer a.changing.Unlock()
	old, err := a.Get(login)
	if err != nil {
		return nil, err
	}
	acct := *old
	acct.Keys, acct.Images = slices.Clone(old.Keys), slices.Clone(old.Images)
	if err := change(&acct); err != nil {
		return nil, err
	}
	return &acct, a.write(&acct)
}

// Remove deletes an account with its files. Its certificates are worth nothing
// from then on, also after an account of the same login is made.
func (a *Accounts) Remove(login string) error {
	if _, err := a.Get(login); err != nil {
		return err
	}
	return os.RemoveAll(a.Dir(login))
}

func (a *Accounts) write(acct *Account) error {
	if err := os.MkdirAll(a.Dir(acct.Login), 0o700); err != nil {
		return err
	}
	text, err := json.MarshalIndent(acct, "", "  ")
	if err != nil {
		return err
	}
	if err := writeFile(a.file(acct.Login), append(text, '\n')); err != nil {
		return fmt.Errorf("endpoint: account %s: %w", acct.Login, err)
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	delete(a.cache, acct.Login)
	return nil
}

// writeFile replaces a file at once: readers see the old one or the new one.
func writeFile(name string, text []byte) error {
	f, err := os.CreateTemp(filepath.Dir(name), ".new-*") // 0600
	if err != nil {
		return err
	}
	_, err = f.Write(text)
	err = errors.Join(err, f.Sync(), f.Close())
	if err == nil {
		err = os.Rename(f.Name(), name)
	}
	if err != nil {
		os.Remove(f.Name())
	}
	return err
}
