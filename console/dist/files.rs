//! The files of the console, written by console/build.

use super::ConsoleFile;

pub(super) static FILES: [ConsoleFile; 3] = [
    ConsoleFile {
        path: "/",
        content_type: "text/html; charset=utf-8",
        etag: "\"56ebdb95464d67f6\"",
        gzipped: include_bytes!("index.html.gz"),
    },
    ConsoleFile {
        path: "/assets/index-COKrtwvm.js",
        content_type: "text/javascript; charset=utf-8",
        etag: "\"c54788c505333f71\"",
        gzipped: include_bytes!("assets/index-COKrtwvm.js.gz"),
    },
    ConsoleFile {
        path: "/assets/style-Db8v_AGy.css",
        content_type: "text/css; charset=utf-8",
        etag: "\"100b8e38ff2802d2\"",
        gzipped: include_bytes!("assets/style-Db8v_AGy.css.gz"),
    },
];
