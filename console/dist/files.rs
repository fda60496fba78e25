//! The files of the console, written by console/build.

use super::ConsoleFile;

pub(super) static FILES: [ConsoleFile; 3] = [
    ConsoleFile {
        path: "/",
        content_type: "text/html; charset=utf-8",
        etag: "\"c30de89b25f5767e\"",
        gzipped: include_bytes!("index.html.gz"),
    },
    ConsoleFile {
        path: "/assets/index-KJW8_SJc.js",
        content_type: "text/javascript; charset=utf-8",
        etag: "\"6d6180b0f89b78bc\"",
        gzipped: include_bytes!("assets/index-KJW8_SJc.js.gz"),
    },
    ConsoleFile {
        path: "/assets/style-D0SbzRWO.css",
        content_type: "text/css; charset=utf-8",
        etag: "\"29f1874058bd8d1d\"",
        gzipped: include_bytes!("assets/style-D0SbzRWO.css.gz"),
    },
];
