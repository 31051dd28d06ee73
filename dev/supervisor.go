package main

import (
	"bufio"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"net/http"
	"os"
	"os/signal"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"syscall"
	"time"
)

const startLimit = 2 * time.Minute

// serviceRange is where Services have their addresses. The first one is the
// apiserver's, which is in its certificate.
const serviceRange = "10.0.0.0/24"

// runSupervisor runs one cluster in a directory until it's told to end.
func runSupervisor(args []string) int {
	// Children die with the thread that started them, see children.
	runtime.LockOSThread()
	dir, untilStdinCloses, apiserverFlags, err := parseRun(args)
	if err != nil {
		fmt.Fprintf(os.Stderr, "%v\n%s", err, usage)
		return 2
	}
	stop := stopOnSignals()
	orders := make(chan string)
	if untilStdinCloses {
		go func() {
			lines := bufio.NewScanner(os.Stdin)
			for lines.Scan() {
				orders <- lines.Text()
			}
			stop <- struct{}{}
		}()
	}
	if err := supervise(dir, apiserverFlags, stop, orders); err != nil && !errors.Is(err, errStopped) {
		fmt.Fprintf(os.Stderr, "cluster in %s: %v\n", dir, err)
		return 1
	}
	return 0
}

// stopOnSignals returns where it tells that the process was asked to end.
func stopOnSignals() chan struct{} {
	stop := make(chan struct{}, 3)
	signals := make(chan os.Signal, 1)
	signal.Notify(signals, syscall.SIGTERM, syscall.SIGINT, syscall.SIGHUP)
	go func() {
		<-signals
		stop <- struct{}{}
	}()
	return stop
}

func parseRun(args []string) (dir string, untilStdinCloses bool, apiserverFlags []string, err error) {
	for len(args) > 0 {
		arg := args[0]
		args = args[1:]
		switch {
		case arg == "--until-stdin-closes":
			untilStdinCloses = true
		case arg == "--":
			apiserverFlags, args = args, nil
		case dir == "" && !strings.HasPrefix(arg, "-"):
			if dir, err = filepath.Abs(arg); err != nil {
				return
			}
		default:
			err = fmt.Errorf("unexpected argument %q", arg)
			return
		}
	}
	if dir == "" {
		err = errors.New("no directory given")
	}
	return
}

func supervise(dir string, apiserverFlags []string, stop <-chan struct{}, orders <-chan string) error {
	kubeconfig := filepath.Join(dir, "kubeconfig")
	pidFile := filepath.Join(dir, "supervisor.pid")
	data := filepath.Join(dir, "cluster.data")

	lock, err := lockDir(dir, "cluster.lock")
	if err != nil {
		return err
	}
	removeAll := func() { _, _, _ = os.Remove(kubeconfig), os.Remove(pidFile), os.RemoveAll(data) }
	removeAll()
	defer removeAll()
	if err := os.WriteFile(pidFile, []byte(strconv.Itoa(os.Getpid())+"\n"), 0o644); err != nil {
		return err
	}
	files, err := newCredentials(filepath.Join(dir, "credentials"))
	if err != nil {
		return err
	}
	if err := linkKubectl(filepath.Join(dir, "kubectl")); err != nil {
		return err
	}

	programs := newChildren(dir, lock)
	defer programs.stop()
	plane := controlPlane{programs: programs, files: files, data: data, apiserverFlags: apiserverFlags}
	for _, port := range []*int{&plane.etcdPort, &plane.peerPort, &plane.port} {
		if *port, err = freePort(); err != nil {
			return err
		}
	}
	begin := time.Now()
	if err := plane.start(stop); err != nil {
		return err
	}
	if err := files.writeKubeconfig(kubeconfig, plane.server()); err != nil {
		return err
	}
	fmt.Printf("cluster is ready after %.1f s: KUBECONFIG=%s\n", time.Since(begin).Seconds(), kubeconfig)
	for {
		order, err := programs.waitForOrder(stop, orders)
		if err != nil {
			return err
		}
		switch order {
		case "pause":
			programs.stop()
			fmt.Println("cluster is paused")
		case "resume":
			if err := plane.start(stop); err != nil {
				return err
			}
			fmt.Println("cluster is ready")
		default:
			return fmt.Errorf("unknown order %q", order)
		}
	}
}

// controlPlane is what the programs of a control plane are started with: the
// same at each start, so that clients find it again.
type controlPlane struct {
	programs                 *children
	files                    *credentials
	data                     string
	apiserverFlags           []string
	etcdPort, peerPort, port int
}

func (p *controlPlane) server() string { return "https://" + loopback(p.port) }

// start starts the programs in order, and returns when the cluster is ready.
func (p *controlPlane) start(stop <-chan struct{}) error {
	programs, files, port := p.programs, p.files, p.port
	etcdURL, peerURL := "http://"+loopback(p.etcdPort), "http://"+loopback(p.peerPort)
	if err := programs.start("etcd", "etcd",
		"--name=default", "--data-dir="+p.data, "--unsafe-no-fsync", "--log-level=warn",
		"--listen-client-urls="+etcdURL, "--advertise-client-urls="+etcdURL,
		"--listen-peer-urls="+peerURL, "--initial-advertise-peer-urls="+peerURL,
		"--initial-cluster=default="+peerURL); err != nil {
		return err
	}
	if err := programs.waitFor("etcd to listen", startLimit, stop, listens(p.etcdPort)); err != nil {
		return err
	}

	if err := programs.start("kube-apiserver", "kube-apiserver", append([]string{
		"--etcd-servers=" + etcdURL,
		"--bind-address=127.0.0.1", "--secure-port=" + strconv.Itoa(port),
		// Else the apiserver looks for an address of the machine that it could
		// announce, and does not start where there's none besides loopback. A
		// loopback address can't be an endpoint of the Service "kubernetes".
		"--advertise-address=127.0.0.1", "--endpoint-reconciler-type=none",
		"--tls-cert-file=" + files.path("apiserver.crt"), "--tls-private-key-file=" + files.path("apiserver.key"),
		"--client-ca-file=" + files.path("ca.crt"), "--token-auth-file=" + files.path("tokens.csv"),
		"--service-account-issuer=https://kubernetes.default.svc",
		"--service-account-signing-key-file=" + files.path("service-account.key"),
		"--service-account-key-file=" + files.path("service-account.key"),
		"--authorization-mode=Node,RBAC", "--allow-privileged",
		"--service-cluster-ip-range=" + serviceRange,
		// For a node, if there will be one: see node.go.
		"--kubelet-preferred-address-types=Hostname",
		"--kubelet-client-certificate=" + files.path("kubelet-client.crt"),
		"--kubelet-client-key=" + files.path("kubelet-client.key"),
	}, p.apiserverFlags...)...); err != nil {
		return err
	}
	if err := programs.waitFor("kube-apiserver to listen", startLimit, stop, listens(port)); err != nil {
		return err
	}

	server := p.server()
	controllersConfig := files.path("controllers.kubeconfig")
	if err := files.writeKubeconfig(controllersConfig, server); err != nil {
		return err
	}
	if err := programs.start("kube-controller-manager", "controllers",
		"--kubeconfig="+controllersConfig, "--authentication-kubeconfig="+controllersConfig,
		"--authorization-kubeconfig="+controllersConfig,
		"--use-service-account-credentials", "--service-account-private-key-file="+files.path("service-account.key"),
		"--root-ca-file="+files.path("ca.crt"), "--leader-elect=false", "--secure-port=0",
		// With the default of 20 a second it takes 8 seconds to start.
		"--kube-api-qps=500", "--kube-api-burst=1000"); err != nil {
		return err
	}

	// Also what the controllers make: a test that creates a pod or lists the
	// ConfigMaps in its first moment should not find less than one a second later.
	get := client(files, server)
	for _, path := range []string{
		"/readyz",
		"/api/v1/namespaces/default",
		"/api/v1/namespaces/default/serviceaccounts/default",
		"/api/v1/namespaces/default/configmaps/kube-root-ca.crt",
	} {
		if err := programs.waitFor(path, startLimit, stop, func() error { return get(path) }); err != nil {
			return err
		}
	}
	return nil
}

// lockDir creates the directory where needed and makes it this supervisor's, by
// a lock on a file of that name in it.
// The lock is free again when the supervisor and all its children have ended.
func lockDir(dir, name string) (*os.File, error) {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return nil, fmt.Errorf("cannot use the directory: %w", err)
	}
	lock, err := os.OpenFile(filepath.Join(dir, name), os.O_RDWR|os.O_CREATE, 0o644)
	if err != nil {
		return nil, fmt.Errorf("cannot use the directory: %w", err)
	}
	// The few tries are for whoever only looks whether the lock is taken.
	for range 10 {
		err = syscall.Flock(int(lock.Fd()), syscall.LOCK_EX|syscall.LOCK_NB)
		if err == nil {
			return lock, nil
		}
		time.Sleep(20 * time.Millisecond)
	}
	if errors.Is(err, syscall.EWOULDBLOCK) {
		return nil, errors.New("another one is running in this directory")
	}
	return nil, fmt.Errorf("cannot lock the directory: %w", err)
}

func linkKubectl(path string) error {
	binary, err := os.Executable()
	if err != nil {
		return err
	}
	_ = os.Remove(path)
	return os.Symlink(binary, path)
}

// freePort finds a port that nobody uses, below the range from which the
// kernel takes the ports of outgoing connections: one of those could come in
// between this check and the child's start.
func freePort() (int, error) {
	var err error
	for range 100 {
		port := 20000 + rand.IntN(12000)
		var listener net.Listener
		if listener, err = net.Listen("tcp", loopback(port)); err == nil {
			return port, listener.Close()
		}
	}
	return 0, fmt.Errorf("found no free port between 20000 and 32000 on 127.0.0.1: %w", err)
}

func loopback(port int) string { return net.JoinHostPort("127.0.0.1", strconv.Itoa(port)) }

func listens(port int) func() error {
	return func() error {
		connection, err := net.Dial("tcp", loopback(port))
		if err != nil {
			return err
		}
		return connection.Close()
	}
}

// client returns a function that succeeds if GET of a path does.
func client(files *credentials, server string) func(path string) error {
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM(files.ca)
	http := &http.Client{
		Timeout:   5 * time.Second,
		Transport: &http.Transport{TLSClientConfig: &tls.Config{RootCAs: roots}},
	}
	return func(path string) error { return get(http, server+path, files.token) }
}

func get(client *http.Client, url, token string) error {
	request, err := http.NewRequest(http.MethodGet, url, nil)
	if err != nil {
		return err
	}
	request.Header.Set("Authorization", "Bearer "+token)
	response, err := client.Do(request)
	if err != nil {
		return err
	}
	defer response.Body.Close()
	if response.StatusCode != http.StatusOK {
		return fmt.Errorf("%s: %s", url, response.Status)
	}
	return nil
}
