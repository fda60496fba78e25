import { defineConfig } from "vite";

export default defineConfig({
  oxc: { jsx: { runtime: "automatic", importSource: "preact" } },
  build: {
    target: "es2022",
    // A content security policy without `data:` for scripts and styles: everything is a file of its own.
    assetsInlineLimit: 0,
    modulePreload: { polyfill: false },
    cssCodeSplit: false,
    rollupOptions: {
      output: { entryFileNames: "assets/console.js", assetFileNames: (asset) => (asset.names[0]?.endsWith(".css") ? "assets/console.css" : "assets/[name][extname]") },
    },
  },
  server: { proxy: { "/api": "http://127.0.0.1:9901", "/status": "http://127.0.0.1:9901" } },
});
