//! The files of the console, written by console/build: path, type and gzipped content.

#[rustfmt::skip]
pub(super) static FILES: [(&str, &str, &[u8]); 3] = [
    ("/", "text/html; charset=utf-8", include_bytes!("index.html.gz")),
    ("/assets/index-Cdl-4wNr.js", "text/javascript; charset=utf-8", include_bytes!("assets/index-Cdl-4wNr.js.gz")),
    ("/assets/style-DooPBfQ3.css", "text/css; charset=utf-8", include_bytes!("assets/style-DooPBfQ3.css.gz")),
];
