import react from "@vitejs/plugin-react";
import { defineConfig } from "vite";

export default defineConfig({
  plugins: [react()],
  // The client is a link to its own folder, where another React is installed for its tests.
  resolve: { dedupe: ["react"] },
  // `npm run dev` serves the page; the app itself runs beside it.
  server: { proxy: { "/ws": { target: "http://127.0.0.1:8000", ws: true } } },
});
