//! The files of the console, written by console/build.

use super::ConsoleFile;

pub(super) static FILES: [ConsoleFile; 3] = [
    ConsoleFile {
        path: "/",
        content_type: "text/html; charset=utf-8",
        etag: "\"e2cc98cf9193336f\"",
        gzipped: include_bytes!("index.html.gz"),
    },
    ConsoleFile {
        path: "/assets/index-C_7vTW-L.js",
        content_type: "text/javascript; charset=utf-8",
        etag: "\"5aa2370d530e53c8\"",
        gzipped: include_bytes!("assets/index-C_7vTW-L.js.gz"),
    },
    ConsoleFile {
        path: "/assets/style-D0SbzRWO.css",
        content_type: "text/css; charset=utf-8",
        etag: "\"29f1874058bd8d1d\"",
        gzipped: include_bytes!("assets/style-D0SbzRWO.css.gz"),
    },
];
