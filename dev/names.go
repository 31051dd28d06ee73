package main

import (
	"log"
	"net"
	"strings"

	"golang.org/x/net/dns/dnsmessage"
	corev1 "k8s.io/api/core/v1"
)

// clusterDomain is what the names of Services end with, as in any cluster.
const clusterDomain = "cluster.local"

// answerNames is the DNS of pods: it knows the addresses of Services, and no
// name of the world outside, which nothing inside could reach.
func (s *services) answerNames(socket net.PacketConn) {
	buffer := make([]byte, 1500)
	for {
		size, from, err := socket.ReadFrom(buffer)
		if err != nil {
			log.Printf("names: %v", err)
			return
		}
		answer, err := s.answer(buffer[:size])
		if err != nil {
			log.Printf("names: %v", err)
			continue
		}
		_, _ = socket.WriteTo(answer, from)
	}
}

func (s *services) answer(query []byte) ([]byte, error) {
	var parser dnsmessage.Parser
	asked, err := parser.Start(query)
	if err != nil {
		return nil, err
	}
	question, err := parser.Question()
	if err != nil {
		return nil, err
	}
	ip := s.addressOf(question.Name.String())
	header := dnsmessage.Header{ID: asked.ID, Response: true, Authoritative: true, RecursionDesired: asked.RecursionDesired, RecursionAvailable: true}
	if ip == nil {
		header.RCode = dnsmessage.RCodeNameError
	}
	message := dnsmessage.Message{Header: header, Questions: []dnsmessage.Question{question}}
	if ip != nil && question.Type == dnsmessage.TypeA {
		message.Answers = []dnsmessage.Resource{{
			Header: dnsmessage.ResourceHeader{Name: question.Name, Class: dnsmessage.ClassINET, TTL: 1},
			Body:   &dnsmessage.AResource{A: [4]byte(ip)},
		}}
	}
	return message.Pack()
}

// addressOf is the address of a Service by its whole name, nil where there is
// none.
func (s *services) addressOf(name string) net.IP {
	name, ours := strings.CutSuffix(strings.ToLower(name), ".svc."+clusterDomain+".")
	service, namespace, whole := strings.Cut(name, ".")
	if !ours || !whole {
		return nil
	}
	found, err := s.services.Services(namespace).Get(service)
	if err != nil || found.Spec.ClusterIP == corev1.ClusterIPNone {
		return nil
	}
	return net.ParseIP(found.Spec.ClusterIP).To4()
}
