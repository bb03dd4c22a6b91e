package api

import (
	"bufio"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"sync"
)

// frameType names the stream of frames that /logs and /exec speak.
const frameType = "application/vnd.mesopool.frames"

// The kinds of frames.
const (
	FrameStdin  byte = iota // to the agent; empty means the end
	FrameStdout             // from the agent
	FrameStderr             // from the agent
	FrameResize             // to the agent: height and width, two big-endian uint16
	FrameExit               // from the agent: the exit code as text, the last frame
	FrameError              // from the agent: why the command did not run, the last frame
)

const mostFrame = 1 << 20

// WriteFrame writes one frame: its kind, the length of its data as big-endian
// uint32, the data.
func WriteFrame(w io.Writer, kind byte, data []byte) error {
	b := make([]byte, 0, 5+len(data))
	b = append(b, kind)
	b = binary.BigEndian.AppendUint32(b, uint32(len(data)))
	_, err := w.Write(append(b, data...))
	return err
}

// ReadFrame reads one frame; io.EOF is the end between two.
func ReadFrame(r io.Reader) (kind byte, data []byte, err error) {
	var head [5]byte
	if _, err := io.ReadFull(r, head[:]); err != nil {
		return 0, nil, err
	}
	n := binary.BigEndian.Uint32(head[1:])
	if n > mostFrame {
		return 0, nil, fmt.Errorf("a frame of %d bytes is too large; the most is %d", n, mostFrame)
	}
	data = make([]byte, n)
	if _, err = io.ReadFull(r, data); errors.Is(err, io.EOF) {
		err = io.ErrUnexpectedEOF
	}
	return head[0], data, err
}

// frames writes frames from several goroutines.
type frames struct {
	mu sync.Mutex
	w  io.Writer
}

func (f *frames) write(kind byte, data []byte) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	return WriteFrame(f.w, kind, data)
}

type frameStream struct {
	out  *frames
	kind byte
}

func (f *frames) stream(kind byte) io.Writer { return frameStream{f, kind} }

func (s frameStream) Write(p []byte) (int, error) {
	if err := s.out.write(s.kind, p); err != nil {
		return 0, err
	}
	return len(p), nil
}

// input is what the client sends, taken apart.
type input struct {
	stdin  *io.PipeReader // to be closed, so that what nobody reads does not wait
	resize <-chan [2]uint
}

// newInput reads until the client hangs up, and then cancels the command.
func newInput(r *bufio.ReadWriter, cancel context.CancelFunc) input {
	pr, pw := io.Pipe()
	sizes := make(chan [2]uint, 1)
	go func() {
		defer cancel()
		defer close(sizes)
		for {
			kind, data, err := ReadFrame(r)
			if err != nil {
				pw.CloseWithError(io.EOF)
				return
			}
			switch {
			case kind == FrameStdin && len(data) == 0:
				pw.Close()
			case kind == FrameStdin:
				pw.Write(data)
			case kind == FrameResize && len(data) == 4:
				size := [2]uint{uint(binary.BigEndian.Uint16(data)), uint(binary.BigEndian.Uint16(data[2:]))}
				select {
				case <-sizes: // an older one that nobody has taken
				default:
				}
				sizes <- size
			}
		}
	}()
	return input{stdin: pr, resize: sizes}
}
