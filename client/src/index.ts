/** `@cacao/client`: the client and its React hooks. */

export * from "./core";
export * from "./react";
