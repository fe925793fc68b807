/** `@cacao/client/core`: the client without React. */

export {
  CacaoClient,
  type ClientOptions,
  type Closing,
  type EventData,
  EventError,
} from "./client";
export type { ConnectionStatus } from "./connection";
export type {
  Environment,
  PageEvent,
  Socket,
  SocketEvents,
  Timers,
  TokenStorage,
} from "./environment";
export type { ErrorDetail, Outcome, Result, State } from "./protocol";
