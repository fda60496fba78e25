//! The files of the console, written by console/build.

use super::ConsoleFile;

pub(super) static FILES: [ConsoleFile; 3] = [
    ConsoleFile {
        path: "/",
        content_type: "text/html; charset=utf-8",
        etag: "\"189125660ef295d0\"",
        gzipped: include_bytes!("index.html.gz"),
    },
    ConsoleFile {
        path: "/assets/index-CJ-3I9E1.js",
        content_type: "text/javascript; charset=utf-8",
        etag: "\"d636c89595a09b5d\"",
        gzipped: include_bytes!("assets/index-CJ-3I9E1.js.gz"),
    },
    ConsoleFile {
        path: "/assets/style-Db8v_AGy.css",
        content_type: "text/css; charset=utf-8",
        etag: "\"100b8e38ff2802d2\"",
        gzipped: include_bytes!("assets/style-Db8v_AGy.css.gz"),
    },
];
