//! Connections: kept alive, encrypted, many.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::sync::Arc;
use std::thread;

use kms_emulator::{Emulator, Options};
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, ClientConnection, RootCertStore, StreamOwned};

use crate::client::{get, parse, start};

/// Reads one answer off a connection that stays open.
fn read_one(stream: &mut impl Read) -> Vec<u8> {
    let mut bytes = Vec::new();
    let mut piece = [0; 4096];
    loop {
        let end = bytes.windows(4).position(|w| w == b"\r\n\r\n");
        if let Some(end) = end {
            let length = parse(&bytes)
                .header("content-length")
                .unwrap()
                .parse::<usize>()
                .unwrap();
            if bytes.len() >= end + 4 + length {
                return bytes;
            }
        }
        let count = stream.read(&mut piece).unwrap();
        assert!(count > 0);
        bytes.extend_from_slice(&piece[..count]);
    }
}

fn kept_alive(request: &[u8]) -> Vec<u8> {
    let text = String::from_utf8(request.to_vec()).unwrap();
    text.replace("connection: close\r\n", "").into_bytes()
}

#[test]
fn one_connection_carries_many_calls() {
    let kms = start();
    kms.put_generic("s", "x");
    let mut tcp = TcpStream::connect(kms.address()).unwrap();
    for _ in 0..50 {
        tcp.write_all(&kept_alive(&get(&kms, "s").v3())).unwrap();
        assert_eq!(parse(&read_one(&mut tcp)).data(), "x");
    }
    assert_eq!(kms.count("GetSecretValue"), 50);
}

#[test]
fn https_is_trusted_by_the_ca_and_by_nothing_else() {
    let kms = start();
    kms.put_generic("s", "x");
    let mut roots = RootCertStore::empty();
    roots
        .add(CertificateDer::from_pem_slice(kms.ca_pem().as_bytes()).unwrap())
        .unwrap();
    for name in ["127.0.0.1", "localhost"] {
        let mut tls = connect(&kms, roots.clone(), name);
        tls.write_all(&kept_alive(&get(&kms, "s").v3())).unwrap();
        assert_eq!(parse(&read_one(&mut tls)).data(), "x");
    }
    let stranger = start();
    let mut tls = connect(&stranger, roots, "127.0.0.1");
    assert!(tls.write_all(b"GET / HTTP/1.1\r\n\r\n").is_err());
}

#[test]
fn https_shows_the_certificate_that_it_was_given() {
    let authority = rcgen_authority();
    let key = KeyPair::generate().unwrap();
    let names = vec!["emulator.demo.svc".to_owned()];
    let certificate = CertificateParams::new(names).unwrap();
    let certificate = certificate.signed_by(&key, &authority).unwrap();
    let kms = Emulator::start_blocking(Options {
        tls_pair: Some((certificate.pem(), key.serialize_pem())),
        ..Options::default()
    })
    .unwrap();
    let mut roots = RootCertStore::empty();
    roots.add(authority.der().clone()).unwrap();
    let mut tls = connect(&kms, roots, "emulator.demo.svc");
    tls.write_all(b"GET /_emulator/health HTTP/1.1\r\nhost: emulator.demo.svc\r\n\r\n")
        .unwrap();
    assert_eq!(parse(&read_one(&mut tls)).status, 200);
    let wrong = ("no certificate".to_owned(), key.serialize_pem());
    let refused = Emulator::start_blocking(Options {
        tls_pair: Some(wrong),
        ..Options::default()
    });
    assert!(refused.is_err());
}

fn rcgen_authority() -> CertifiedIssuer<'static, KeyPair> {
    let mut params = CertificateParams::default();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap()
}

fn connect(
    kms: &kms_emulator::Emulator,
    roots: RootCertStore,
    name: &'static str,
) -> StreamOwned<ClientConnection, TcpStream> {
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    let name = ServerName::try_from(name).unwrap();
    let client = ClientConnection::new(Arc::new(config), name).unwrap();
    StreamOwned::new(client, TcpStream::connect(kms.https_address()).unwrap())
}

#[test]
fn many_clients_at_once_are_all_answered() {
    let kms = start();
    kms.put_generic("s", "x");
    let clients: Vec<_> = (0..8)
        .map(|_| {
            let kms = kms.clone();
            thread::spawn(move || {
                let mut tcp = TcpStream::connect(kms.address()).unwrap();
                for _ in 0..100 {
                    tcp.write_all(&kept_alive(&get(&kms, "s").v3())).unwrap();
                    assert_eq!(parse(&read_one(&mut tcp)).status, 200);
                }
            })
        })
        .collect();
    for client in clients {
        client.join().unwrap();
    }
    assert_eq!(kms.count_where(|call| call.outcome == "OK"), 800);
    assert_eq!(kms.in_flight(), 0);
}
