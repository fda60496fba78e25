//! Client input can neither break a log line nor create metric labels.

use super::Stage;

/// In JSON everything is escaped, so that nothing of a client's moves a terminal's cursor or begins a line.
#[tokio::test]
async fn client_input_cannot_break_a_log_line() {
    let stage = Stage::new().await;
    for text in [
        "GET /a?b=%0d%0aforged HTTP/1.1\r\nhost: a\r\nAUTH\r\nx-request-id: \"}\\n{\"forged\r\nconnection: close\r\n\r\n",
        "GET /b HTTP/1.1\r\nhost: a\r\nAUTH\r\nuser-agent: \u{85}\u{9b}31m\r\nx-request-id: \u{9b}0\r\nconnection: close\r\n\r\n",
        "GET /\u{1b}[31m HTTP/1.1\r\nhost: a\r\nAUTH\r\n\r\n",
        "GET /\u{9b}31m HTTP/1.1\r\nhost: a\r\nAUTH\r\n\r\n",
        "G\u{1b}T / HTTP/1.1\r\nhost: a\r\nAUTH\r\n\r\n",
        "GET / HTTP/1.1\r\nhost: a\nforged\r\nAUTH\r\n\r\n",
        "GET /\"},{\" HTTP/1.1\r\nhost: a\r\nAUTH\r\n\r\n",
    ] {
        stage.send(text).await;
    }
    // This one's line stands behind all others.
    stage.forwarded("").await;
    stage.gateway.access("/x", 1).await;
    let output = stage.gateway.output();
    assert_eq!(output.chars().find(|it| it.is_control() && *it != '\n'), None, "{output:?}");
    assert!(output.lines().all(|line| line.starts_with('{') && line.ends_with('}')), "{output}");
    assert!(!output.contains("forged") && !output.contains(&stage.token.secret), "{output}");
}

#[tokio::test]
async fn metric_labels_do_not_grow_with_client_input() {
    let stage = Stage::new().await;
    let count = async || stage.gateway.admin("/metrics").await.1.lines().count();
    stage.forwarded("").await;
    stage.send("BREW /x HTTP/1.1\r\nhost: a\r\nAUTH\r\nconnection: close\r\n\r\n").await;
    stage.send("GET /x HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n").await;
    let before = count().await;
    for number in 0..50 {
        let text = format!(
            "M{number} /path-{number} HTTP/1.1\r\nhost: h{number}\r\nAUTH\r\nuser-agent: u{number}\r\nconnection: close\r\n\r\n"
        );
        stage.send(&text).await;
        stage
            .send(&format!(
                "GET /x HTTP/1.1\r\nhost: a\r\nauthorization: Bearer t{number}\r\nconnection: close\r\n\r\n"
            ))
            .await;
    }
    // The first malformed token makes a series of its own.
    assert!(count().await <= before + 8, "{}", stage.gateway.admin("/metrics").await.1);
}
