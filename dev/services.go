package main

import (
	"context"
	"fmt"
	"log"
	"math/rand/v2"
	"net"
	"strconv"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/client-go/informers"
	"k8s.io/client-go/kubernetes"
	corelisters "k8s.io/client-go/listers/core/v1"
	discoverylisters "k8s.io/client-go/listers/discovery/v1"
	"k8s.io/client-go/tools/cache"
)

// services connects those who dial the address of a Service with a pod that is
// ready. Connections end here and new ones go on, which needs nothing of the
// kernel; kube-proxy needs its packet filter. Only TCP.
type services struct {
	services  corelisters.ServiceLister
	endpoints discoverylisters.EndpointSliceLister
	listeners map[servicePort]net.Listener
}

// servicePort is one port of a Service, at the address that it has.
type servicePort struct{ namespace, service, port, address string }

// watchServices follows all Services from now on.
func watchServices(client kubernetes.Interface) *services {
	factory := informers.NewSharedInformerFactory(client, 0)
	found := factory.Core().V1().Services()
	s := &services{
		services:  found.Lister(),
		endpoints: factory.Discovery().V1().EndpointSlices().Lister(),
		listeners: make(map[servicePort]net.Listener),
	}
	changed := make(chan struct{}, 1)
	tell := func() {
		select {
		case changed <- struct{}{}:
		default: // Somebody told already.
		}
	}
	_, _ = found.Informer().AddEventHandler(cache.ResourceEventHandlerFuncs{
		AddFunc:    func(any) { tell() },
		UpdateFunc: func(any, any) { tell() },
		DeleteFunc: func(any) { tell() },
	})
	factory.Start(context.Background().Done())
	go func() {
		for range changed {
			s.listen()
		}
	}()
	return s
}

// listen makes the listeners those of the Services that there are.
func (s *services) listen() {
	wanted := s.ports()
	for port, listener := range s.listeners {
		if !wanted[port] {
			_ = listener.Close()
			delete(s.listeners, port)
		}
	}
	for port := range wanted {
		if s.listeners[port] != nil {
			continue
		}
		listener, err := net.Listen("tcp", port.address)
		if err != nil {
			log.Printf("service %s/%s: %v", port.namespace, port.service, err)
			continue
		}
		s.listeners[port] = listener
		go pass(listener, func() (net.Conn, error) { return s.dial(port) })
	}
}

func (s *services) ports() map[servicePort]bool {
	ports := make(map[servicePort]bool)
	all, _ := s.services.List(labels.Everything())
	for _, service := range all {
		ip := service.Spec.ClusterIP
		// The apiserver's Service has a listener of its own.
		if ip == "" || ip == corev1.ClusterIPNone || service.Namespace == "default" && service.Name == "kubernetes" {
			continue
		}
		for _, port := range service.Spec.Ports {
			if port.Protocol == corev1.ProtocolTCP {
				address := net.JoinHostPort(ip, strconv.Itoa(int(port.Port)))
				ports[servicePort{service.Namespace, service.Name, port.Name, address}] = true
			}
		}
	}
	return ports
}

func (s *services) dial(port servicePort) (net.Conn, error) {
	slices, err := s.endpoints.EndpointSlices(port.namespace).
		List(labels.Set{discoveryv1.LabelServiceName: port.service}.AsSelector())
	if err != nil {
		return nil, err
	}
	var ready []string
	for _, slice := range slices {
		for _, target := range slice.Ports {
			if target.Name == nil || *target.Name != port.port || target.Port == nil {
				continue
			}
			for _, endpoint := range slice.Endpoints {
				if endpoint.Conditions.Ready == nil || *endpoint.Conditions.Ready {
					ready = append(ready, net.JoinHostPort(endpoint.Addresses[0], strconv.Itoa(int(*target.Port))))
				}
			}
		}
	}
	if len(ready) == 0 {
		return nil, fmt.Errorf("no pod of service %s/%s is ready", port.namespace, port.service)
	}
	return net.Dial("tcp", ready[rand.IntN(len(ready))])
}
