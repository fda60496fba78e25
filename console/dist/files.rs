//! The files of the console, written by console/build.

use super::ConsoleFile;

pub(super) static FILES: [ConsoleFile; 3] = [
    ConsoleFile {
        path: "/",
        content_type: "text/html; charset=utf-8",
        etag: "\"4a3cebd6e3e758a1\"",
        gzipped: include_bytes!("index.html.gz"),
    },
    ConsoleFile {
        path: "/assets/index-BPFjFr-j.js",
        content_type: "text/javascript; charset=utf-8",
        etag: "\"355bda00e7922d42\"",
        gzipped: include_bytes!("assets/index-BPFjFr-j.js.gz"),
    },
    ConsoleFile {
        path: "/assets/style-Db8v_AGy.css",
        content_type: "text/css; charset=utf-8",
        etag: "\"100b8e38ff2802d2\"",
        gzipped: include_bytes!("assets/style-Db8v_AGy.css.gz"),
    },
];
