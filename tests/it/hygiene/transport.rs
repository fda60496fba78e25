//! TLS as the transport of messages: where it ends says something only when it is said.

use std::sync::Arc;

use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::{TlsAcceptor, TlsConnector};

use super::{EVERYTHING, Stage};
use crate::support::client::{http1, http2, raw};
use crate::support::gateway::Site;

/// Answers every request with a body that ends where the connection does; says goodbye before that, or goes without a word.
async fn upstream(acceptor: TlsAcceptor, says_goodbye: bool) -> std::net::SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((socket, _)) = listener.accept().await {
            let mut stream = acceptor.accept(socket).await.unwrap();
            let mut request = Vec::new();
            while !request.ends_with(b"\r\n\r\n") {
                request.push(stream.read_u8().await.unwrap());
            }
            stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-type: text/plain\r\n\r\npay 100").await.unwrap();
            stream.flush().await.unwrap();
            if says_goodbye {
                stream.shutdown().await.unwrap();
            }
        }
    });
    address
}

/// An attacker on the path can end a connection, but can't send the close_notify of the service.
#[tokio::test]
async fn rfc8446_6_1_a_response_without_close_notify_is_incomplete() {
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    for says_goodbye in [true, false] {
        let site = Site::new("");
        let certificate = CertificateDer::from_pem_file(site.path("cert.pem")).unwrap();
        let key = PrivateKeyDer::from_pem_file(site.path("key.pem")).unwrap();
        let config = rustls::ServerConfig::builder().with_no_client_auth().with_single_cert(vec![certificate], key);
        let address = upstream(TlsAcceptor::from(Arc::new(config.unwrap())), says_goodbye).await;
        let config = std::fs::read_to_string(site.config()).unwrap();
        let more = format!(
            "store: memory\ntokens: {{ file: tokens.yaml }}\n{EVERYTHING}\n\
             upstreams: {{ up: {{ endpoints: [\"https://localhost:{}\"], ca: cert.pem }} }}\n",
            address.port()
        );
        std::fs::write(site.config(), config + &more).unwrap();
        let token = site.token(&[]);
        let gateway = site.serve();
        for client in [http1(&gateway), http2(&gateway)] {
            let answer = client.get(gateway.url("/x")).bearer_auth(&token.secret).send().await;
            let body = match answer {
                Ok(answer) => answer.text().await.ok(),
                Err(_) => None,
            };
            assert_eq!(body.as_deref(), says_goodbye.then_some("pay 100"));
        }
    }
}

#[tokio::test]
async fn rfc8446_6_1_a_connection_ends_with_close_notify() {
    let stage = Stage::new().await;
    for text in [
        "GET /x HTTP/1.1\r\nhost: a\r\nAUTH\r\nconnection: close\r\n\r\n",
        "GET /x HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n",
        "nonsense\r\n\r\n",
        // Idle for too long.
        "GET /x HTTP/1.1\r\nhost: a\r\nAUTH\r\n\r\n",
        "",
    ] {
        let mut client = raw(&stage.gateway, "http/1.1").await;
        client.write_all(&stage.bytes(text)).await.unwrap();
        let mut answer = Vec::new();
        let ended = client.read_to_end(&mut answer).await;
        assert!(ended.is_ok(), "{text:?}: {ended:?}");
        assert_eq!(answer.is_empty(), text.is_empty(), "{text:?}");
    }
}

/// An attacker who has seen early data could send it once more.
#[tokio::test]
async fn rfc8470_5_1_no_request_is_taken_before_the_handshake_is_done() {
    let stage = Stage::new().await;
    let mut roots = rustls::RootCertStore::empty();
    roots.add(CertificateDer::from_pem_file(stage.gateway.site.path("cert.pem")).unwrap()).unwrap();
    let mut config = rustls::ClientConfig::builder().with_root_certificates(roots).with_no_client_auth();
    config.enable_early_data = true;
    let connector = TlsConnector::from(Arc::new(config));
    for is_resumed in [false, true] {
        let socket = TcpStream::connect(stage.gateway.https).await.unwrap();
        let name = ServerName::try_from("localhost").unwrap();
        let mut is_invited = true;
        let connecting = connector.connect_with(name, socket, |session| is_invited = session.early_data().is_some());
        let mut stream = connecting.await.unwrap();
        let request = "GET /x HTTP/1.1\r\nhost: a\r\nAUTH\r\nconnection: close\r\n\r\n";
        stream.write_all(&stage.bytes(request)).await.unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.unwrap();
        assert!(answer.starts_with("HTTP/1.1 200 "), "{answer}");
        let resumed = stream.get_ref().1.handshake_kind() == Some(rustls::HandshakeKind::Resumed);
        assert_eq!((resumed, is_invited), (is_resumed, false));
    }
}
