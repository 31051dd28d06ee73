package main

import (
	"io"
	"log"
	"net"
)

// serve listens on one address and connects whoever comes to another.
func serve(network, address, toNetwork, toAddress string) error {
	listener, err := net.Listen(network, address)
	if err != nil {
		return err
	}
	go pass(listener, func() (net.Conn, error) { return net.Dial(toNetwork, toAddress) })
	return nil
}

// pass connects everybody who comes to what dial reaches, until the listener is
// closed.
func pass(listener net.Listener, dial func() (net.Conn, error)) {
	for {
		from, err := listener.Accept()
		if err != nil {
			return
		}
		go func() {
			defer from.Close()
			to, err := dial()
			if err != nil {
				log.Printf("%s: %v", listener.Addr(), err)
				return
			}
			defer to.Close()
			relay(from, to)
		}()
	}
}

// relay copies both ways until both sides have ended.
func relay(a, b net.Conn) {
	done := make(chan struct{})
	go func() {
		copyHalf(a, b)
		close(done)
	}()
	copyHalf(b, a)
	<-done
}

// copyHalf passes on the end of what one side says, while it still listens.
func copyHalf(to, from net.Conn) {
	_, _ = io.Copy(to, from)
	if half, ok := to.(interface{ CloseWrite() error }); ok {
		_ = half.CloseWrite()
	}
}
