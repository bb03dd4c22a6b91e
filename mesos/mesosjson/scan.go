package mesosjson

import (
	"errors"
	"fmt"
	"unicode/utf16"
	"unicode/utf8"
)

// maxDepth is how deeply values may be nested.
const maxDepth = 200

// scanner reads JSON text from left to right.
type scanner struct {
	in    []byte
	pos   int
	depth int
	buf   []byte // the last string that had escapes
}

// peek skips white space and returns the byte after it, 0 at the end.
func (s *scanner) peek() byte {
	for ; s.pos < len(s.in); s.pos++ {
		switch c := s.in[s.pos]; c {
		case ' ', '\t', '\r', '\n':
		default:
			return c
		}
	}
	return 0
}

func (s *scanner) syntax(want string) error {
	c := s.peek()
	if s.pos == len(s.in) {
		return fmt.Errorf("JSON ends where %s should be", want)
	}
	return fmt.Errorf("JSON has %q at byte %d where %s should be", c, s.pos, want)
}

// end is an error unless only white space is left.
func (s *scanner) end() error {
	if s.peek(); s.pos < len(s.in) {
		return s.syntax("the end")
	}
	return nil
}

// enter and leave go into an object or a list.
func (s *scanner) enter() error {
	s.pos++
	if s.depth++; s.depth > maxDepth {
		return fmt.Errorf("JSON nested more than %d levels deep", maxDepth)
	}
	return nil
}

// more says whether another element follows, before the closing byte; first is
// whether none has been read yet.
func (s *scanner) more(first bool, closing byte) (bool, error) {
	c := s.peek()
	if c == closing {
		s.pos++
		s.depth--
		return false, nil
	}
	if first {
		return true, nil
	}
	if c != ',' {
		return false, s.syntax(fmt.Sprintf("',' or %q", closing))
	}
	s.pos++
	if s.peek() == closing {
		return false, s.syntax("an element")
	}
	return true, nil
}

// key reads a name and the colon after it. It is valid until the next string.
func (s *scanner) key() ([]byte, error) {
	if s.peek() != '"' {
		return nil, s.syntax("a field's name")
	}
	k, err := s.str()
	if err != nil {
		return nil, err
	}
	if s.peek() != ':' {
		return nil, s.syntax("':'")
	}
	s.pos++
	return k, nil
}

// str reads a string, at its quote. It is valid until the next string.
func (s *scanner) str() ([]byte, error) {
	start := s.pos + 1
	for i := start; i < len(s.in); i++ {
		switch c := s.in[i]; {
		case c == '"':
			s.pos = i + 1
			return s.in[start:i], nil
		case c == '\\':
			return s.escaped(start, i)
		case c < ' ':
			s.pos = i
			return nil, s.syntax("a string without control characters")
		}
	}
	return nil, errors.New("JSON ends inside a string")
}

// escaped reads on from the first backslash of a string, at i.
func (s *scanner) escaped(start, i int) ([]byte, error) {
	s.buf = append(s.buf[:0], s.in[start:i]...)
	for s.pos = i; s.pos < len(s.in); {
		c := s.in[s.pos]
		switch {
		case c == '"':
			s.pos++
			return s.buf, nil
		case c == '\\':
			if err := s.escape(); err != nil {
				return nil, err
			}
			continue
		case c < ' ':
			return nil, s.syntax("a string without control characters")
		}
		s.buf = append(s.buf, c)
		s.pos++
	}
	return nil, errors.New("JSON ends inside a string")
}

// escape reads one backslash and what belongs to it.
func (s *scanner) escape() error {
	rest := s.in[s.pos+1:]
	if len(rest) == 0 {
		return errors.New("JSON ends inside a string")
	}
	switch c := rest[0]; c {
	case '"', '\\', '/':
		s.buf = append(s.buf, c)
	case 'b':
		s.buf = append(s.buf, '\b')
	case 'f':
		s.buf = append(s.buf, '\f')
	case 'n':
		s.buf = append(s.buf, '\n')
	case 'r':
		s.buf = append(s.buf, '\r')
	case 't':
		s.buf = append(s.buf, '\t')
	case 'u':
		return s.unicode()
	default:
		return fmt.Errorf("JSON has the unknown escape \\%c at byte %d", c, s.pos)
	}
	s.pos += 2
	return nil
}

// unicode reads \uXXXX, or two of them that form a surrogate pair. Half a pair
// becomes U+FFFD.
func (s *scanner) unicode() error {
	r, ok := hex4(s.in[s.pos:])
	if !ok {
		return fmt.Errorf("JSON has \\u without four hexadecimal digits at byte %d", s.pos)
	}
	s.pos += 6
	if utf16.IsSurrogate(r) {
		low, ok := hex4(s.in[s.pos:])
		if r = utf16.DecodeRune(r, low); ok && r != utf8.RuneError {
			s.pos += 6
		}
	}
	s.buf = utf8.AppendRune(s.buf, r)
	return nil
}

func hex4(in []byte) (rune, bool) {
	if len(in) < 6 || in[0] != '\\' || in[1] != 'u' {
		return 0, false
	}
	var r rune
	for _, c := range in[2:6] {
		switch {
		case '0' <= c && c <= '9':
			c -= '0'
		case 'a' <= c|0x20 && c|0x20 <= 'f':
			c = c | 0x20 - 'a' + 10
		default:
			return 0, false
		}
		r = r<<4 | rune(c)
	}
	return r, true
}

// literal reads true, false or null.
func (s *scanner) literal(word string) error {
	if len(s.in)-s.pos < len(word) || string(s.in[s.pos:s.pos+len(word)]) != word {
		return s.syntax("a value")
	}
	s.pos += len(word)
	return nil
}

// number reads a number and returns its text.
func (s *scanner) number() ([]byte, error) {
	n := numberLen(s.in[s.pos:])
	if n == 0 {
		return nil, s.syntax("a value")
	}
	s.pos += n
	return s.in[s.pos-n : s.pos], nil
}

// numberLen is the length of the JSON number that in starts with, 0 for none.
func numberLen(in []byte) int {
	i := 0
	if i < len(in) && in[i] == '-' {
		i++
	}
	n := digits(in, i)
	if n == i || in[i] == '0' && n > i+1 {
		return 0
	}
	i = n
	if i < len(in) && in[i] == '.' {
		if n = digits(in, i+1); n == i+1 {
			return 0
		}
		i = n
	}
	if i < len(in) && in[i]|0x20 == 'e' {
		i++
		if i < len(in) && (in[i] == '+' || in[i] == '-') {
			i++
		}
		if n = digits(in, i); n == i {
			return 0
		}
		i = n
	}
	return i
}

// digits returns the index after the digits from i on.
func digits(in []byte, i int) int {
	for i < len(in) && '0' <= in[i] && in[i] <= '9' {
		i++
	}
	return i
}

// skip reads any value and forgets it.
func (s *scanner) skip() error {
	switch c := s.peek(); c {
	case '{', '[':
		return s.skipNested(c)
	case '"':
		_, err := s.str()
		return err
	case 't':
		return s.literal("true")
	case 'f':
		return s.literal("false")
	case 'n':
		return s.literal("null")
	default:
		_, err := s.number()
		return err
	}
}

func (s *scanner) skipNested(opening byte) error {
	if err := s.enter(); err != nil {
		return err
	}
	for first := true; ; first = false {
		ok, err := s.more(first, opening+2) // '{'+2 is '}', '['+2 is ']'
		if err != nil || !ok {
			return err
		}
		if opening == '{' {
			if _, err := s.key(); err != nil {
				return err
			}
		}
		if err := s.skip(); err != nil {
			return err
		}
	}
}
