//! The files of the console, written by console/build.

use super::ConsoleFile;

pub(super) static FILES: [ConsoleFile; 3] = [
    ConsoleFile {
        path: "/",
        content_type: "text/html; charset=utf-8",
        etag: "\"5c2a7b812c46d724\"",
        gzipped: include_bytes!("index.html.gz"),
    },
    ConsoleFile {
        path: "/assets/index-Cdl-4wNr.js",
        content_type: "text/javascript; charset=utf-8",
        etag: "\"cd0abe5e139bfb61\"",
        gzipped: include_bytes!("assets/index-Cdl-4wNr.js.gz"),
    },
    ConsoleFile {
        path: "/assets/style-DooPBfQ3.css",
        content_type: "text/css; charset=utf-8",
        etag: "\"b8d154a523240aaa\"",
        gzipped: include_bytes!("assets/style-DooPBfQ3.css.gz"),
    },
];
