import { CacaoProvider } from "@cacao/client";
import { StrictMode } from "react";
import { createRoot } from "react-dom/client";
import { App } from "./App";
import "./style.css";

createRoot(document.getElementById("root") as HTMLElement).render(
  <StrictMode>
    <CacaoProvider>
      <App />
    </CacaoProvider>
  </StrictMode>,
);
