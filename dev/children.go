package main

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"time"
)

// child is one program of the control plane, running as a process of its own.
type child struct {
	name string
	log  string
	cmd  *exec.Cmd
	err  error
	done chan struct{}
}

// children starts programs and makes sure that none outlives the supervisor.
// Its methods have to be called on one and the same OS thread: Pdeathsig is
// sent when the thread that forked ends, not the process.
type children struct {
	dir     string
	lock    *os.File
	running []*child
	died    chan *child
}

func newChildren(dir string, lock *os.File) *children {
	return &children{dir: dir, lock: lock, died: make(chan *child, 16)}
}

// start runs this binary as the program of that name, logging to NAME.log.
func (c *children) start(name, program string, args ...string) error {
	return c.startCommand(name, self(program, args...))
}

// self is this binary as one of its programs.
func self(program string, args ...string) *exec.Cmd {
	// Not os.Executable: its path is gone if the cache was cleaned meanwhile.
	cmd := exec.Command("/proc/self/exe", args...)
	cmd.Args[0] = program
	return cmd
}

// startCommand runs a program that may be another's, logging to NAME.log.
func (c *children) startCommand(name string, cmd *exec.Cmd) error {
	path := filepath.Join(c.dir, name+".log")
	log, err := os.Create(path)
	if err != nil {
		return err
	}
	defer log.Close()
	cmd.Stdout, cmd.Stderr = log, log
	// Each child holds the lock too, so that it's free only when all are gone.
	cmd.ExtraFiles = []*os.File{c.lock}
	if cmd.SysProcAttr == nil {
		cmd.SysProcAttr = &syscall.SysProcAttr{}
	}
	cmd.SysProcAttr.Pdeathsig = syscall.SIGKILL
	// Ctrl-C in a terminal is for the supervisor alone, which then ends the
	// children in its own way.
	cmd.SysProcAttr.Setpgid = true
	if err := cmd.Start(); err != nil {
		return fmt.Errorf("cannot start %s: %w", name, err)
	}
	ch := &child{name: name, log: path, cmd: cmd, done: make(chan struct{})}
	c.running = append(c.running, ch)
	died := c.died
	go func() {
		ch.err = cmd.Wait()
		close(ch.done)
		died <- ch
	}()
	return nil
}

// stop ends all children; others may be started after that. It's SIGKILL because
// an apiserver asked to stop waits long for an etcd that has gone, and because
// what etcd has written outlives it.
func (c *children) stop() {
	for i := len(c.running) - 1; i >= 0; i-- {
		_ = c.running[i].cmd.Process.Kill()
	}
	for _, ch := range c.running {
		<-ch.done
	}
	// Of these deaths nobody has to hear.
	c.running, c.died = nil, make(chan *child, cap(c.died))
}

// errStopped says that the supervisor was asked to end.
var errStopped = errors.New("stopped")

// waitFor polls until the check passes; it fails when a child dies, when the
// supervisor is asked to stop or when the time is up. Without a check it only
// ends that way.
func (c *children) waitFor(what string, limit time.Duration, stop <-chan struct{}, check func() error) error {
	var deadline <-chan time.Time
	results := make(chan error)
	if check != nil {
		deadline = time.After(limit)
		over := make(chan struct{})
		defer close(over)
		// Apart, as a check may hang while there's something else to notice.
		go func() {
			for {
				select {
				case results <- check():
					time.Sleep(50 * time.Millisecond)
				case <-over:
					return
				}
			}
		}()
	}
	last := errors.New("no answer")
	for {
		select {
		case <-stop:
			return errStopped
		case ch := <-c.died:
			return ch.obituary()
		case <-deadline:
			return fmt.Errorf("%s: not within %s: %w; see the logs in %s", what, limit, last, c.dir)
		case last = <-results:
			if last == nil {
				return nil
			}
		}
	}
}

// waitForOrder waits until the supervisor is told to do something; it fails when
// a child dies or when the supervisor is asked to stop.
func (c *children) waitForOrder(stop <-chan struct{}, orders <-chan string) (string, error) {
	select {
	case <-stop:
		return "", errStopped
	case ch := <-c.died:
		return "", ch.obituary()
	case order := <-orders:
		return order, nil
	}
}

func (ch *child) obituary() error {
	how := "exit status 0"
	if ch.err != nil {
		how = ch.err.Error()
	}
	return fmt.Errorf("%s ended by itself (%s); the end of %s:\n%s", ch.name, how, ch.log, lastLines(ch.log, 15))
}

func lastLines(path string, count int) string {
	content, err := os.ReadFile(path)
	if err != nil {
		return err.Error()
	}
	lines := strings.Split(strings.TrimRight(string(content), "\n"), "\n")
	if len(lines) > count {
		lines = lines[len(lines)-count:]
	}
	return "  " + strings.Join(lines, "\n  ")
}
