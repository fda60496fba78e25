import { defineConfig } from "vite";

// `npm run dev` serves the sources and passes the API's paths to a gateway, or to tests/mock.
const admin = process.env.CALLGATE_ADMIN ?? "http://127.0.0.1:9901";

export default defineConfig({
  base: "/",
  oxc: { jsx: { runtime: "automatic", importSource: "preact" } },
  build: {
    target: "es2022",
    // The policy of the page allows no inline script, and no data: URL but images.
    modulePreload: false,
    assetsInlineLimit: 0,
    cssCodeSplit: false,
    rollupOptions: {
      output: {
        entryFileNames: "assets/[name]-[hash].js",
        assetFileNames: "assets/[name]-[hash][extname]",
      },
    },
  },
  server: { proxy: { "/api": admin, "/status": admin } },
});
