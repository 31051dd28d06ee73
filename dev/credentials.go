package main

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/base64"
	"encoding/pem"
	"fmt"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"time"
)

// credentials are the files that the programs of one cluster share, made anew
// for each run.
type credentials struct {
	dir   string
	token string
	ca    []byte
}

func (c *credentials) path(name string) string { return filepath.Join(c.dir, name) }

// newCredentials writes a CA, the apiserver's certificate, the one that it shows
// to kubelets, the key that signs ServiceAccount tokens, and the administrator's
// token. The CA is one of its
// own because some TLS clients refuse a server that presents a CA certificate.
func newCredentials(dir string) (*credentials, error) {
	c := &credentials{dir: dir, token: rand.Text()}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, err
	}

	caKey, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, err
	}
	ca := certificate("kms-secret-operator test CA")
	ca.IsCA, ca.BasicConstraintsValid = true, true
	ca.KeyUsage = x509.KeyUsageCertSign | x509.KeyUsageDigitalSignature
	caDER, err := x509.CreateCertificate(rand.Reader, ca, ca, caKey.Public(), caKey)
	if err != nil {
		return nil, err
	}
	c.ca = pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: caDER})

	serverKey, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, err
	}
	server := certificate("kube-apiserver")
	server.KeyUsage = x509.KeyUsageDigitalSignature
	server.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth}
	server.IPAddresses = []net.IP{net.IPv4(127, 0, 0, 1), net.IPv4(10, 0, 0, 1)}
	server.DNSNames = []string{"localhost", "kubernetes", "kubernetes.default", "kubernetes.default.svc"}
	serverDER, err := x509.CreateCertificate(rand.Reader, server, ca, serverKey.Public(), caKey)
	if err != nil {
		return nil, err
	}

	clientKey, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, err
	}
	client := certificate("kube-apiserver-kubelet-client")
	client.KeyUsage = x509.KeyUsageDigitalSignature
	client.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}
	clientDER, err := x509.CreateCertificate(rand.Reader, client, ca, clientKey.Public(), caKey)
	if err != nil {
		return nil, err
	}

	// RS256, which is what clusters sign their tokens with.
	tokenKey, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		return nil, err
	}

	serverKeyPEM, err := privateKeyPEM(serverKey)
	if err != nil {
		return nil, err
	}
	clientKeyPEM, err := privateKeyPEM(clientKey)
	if err != nil {
		return nil, err
	}
	tokenKeyPEM, err := privateKeyPEM(tokenKey)
	if err != nil {
		return nil, err
	}
	for name, content := range map[string][]byte{
		"ca.crt":              c.ca,
		"apiserver.crt":       pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: serverDER}),
		"apiserver.key":       serverKeyPEM,
		"kubelet-client.crt":  pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: clientDER}),
		"kubelet-client.key":  clientKeyPEM,
		"service-account.key": tokenKeyPEM,
		"tokens.csv":          fmt.Appendf(nil, "%s,admin,admin,\"system:masters\"\n", c.token),
	} {
		if err := os.WriteFile(c.path(name), content, 0o600); err != nil {
			return nil, err
		}
	}
	return c, nil
}

func certificate(name string) *x509.Certificate {
	serial, _ := rand.Int(rand.Reader, new(big.Int).Lsh(big.NewInt(1), 120))
	return &x509.Certificate{
		SerialNumber: serial,
		Subject:      pkix.Name{CommonName: name},
		// The hour is for a clock that is set back while the cluster runs.
		NotBefore: time.Now().Add(-time.Hour),
		NotAfter:  time.Now().AddDate(1, 0, 0),
	}
}

func privateKeyPEM(key any) ([]byte, error) {
	der, err := x509.MarshalPKCS8PrivateKey(key)
	return pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der}), err
}

// writeKubeconfig writes the administrator's kubeconfig in one step: whoever
// finds the file finds all of it.
func (c *credentials) writeKubeconfig(path, server string) error {
	content := fmt.Sprintf(`apiVersion: v1
kind: Config
current-context: admin
clusters:
- name: cluster
  cluster:
    server: %s
    certificate-authority-data: %s
users:
- name: admin
  user:
    token: %s
contexts:
- name: admin
  context:
    cluster: cluster
    user: admin
    namespace: default
`, server, base64.StdEncoding.EncodeToString(c.ca), c.token)
	if err := os.WriteFile(path+".new", []byte(content), 0o600); err != nil {
		return err
	}
	return os.Rename(path+".new", path)
}
