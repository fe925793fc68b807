/** React hooks over a `CacaoClient`; the only file of the library that imports React. */

import {
  type ChangeEvent,
  createContext,
  type FormEvent,
  type ReactNode,
  type SyntheticEvent,
  useCallback,
  useContext,
  useEffect,
  useRef,
  useState,
  useSyncExternalStore,
} from "react";
import { CacaoClient, type EventData, type EventError } from "./client";
import type { ConnectionStatus } from "./connection";
import type { Outcome, Result } from "./protocol";

// --- The provider ---------------------------------------------------------------------------

const ClientContext = createContext<CacaoClient | null>(null);

export interface CacaoProviderProps {
  /** Where the server listens. Default: `/ws` on the page's own host. */
  url?: string;
  /** A client made elsewhere, in place of `url`. */
  client?: CacaoClient;
  children?: ReactNode;
}

/** Connects its children to a server for as long as it is mounted. */
export function CacaoProvider({ url, client, children }: CacaoProviderProps): ReactNode {
  if (client !== undefined) return <ClientHolder client={client}>{children}</ClientHolder>;
  // Another server has another state: its page starts anew.
  return (
    <UrlProvider key={url} url={url}>
      {children}
    </UrlProvider>
  );
}

function UrlProvider({ url, children }: { url: string | undefined; children: ReactNode }) {
  const [client] = useState(() => new CacaoClient(url === undefined ? {} : { url }));
  return <ClientHolder client={client}>{children}</ClientHolder>;
}

function ClientHolder({ client, children }: { client: CacaoClient; children: ReactNode }) {
  useEffect(() => client.retain(), [client]);
  return <ClientContext.Provider value={client}>{children}</ClientContext.Provider>;
}

/**
 * The client of the nearest `CacaoProvider`.
 *
 * @throws Error outside of one.
 */
export function useCacao(): CacaoClient {
  const client = useContext(ClientContext);
  if (client === null) {
    throw new Error("this component is not inside a <CacaoProvider>; wrap your app in one");
  }
  return client;
}

// --- State ------------------------------------------------------------------------------------

/**
 * The value of a server's signal; the component renders when that signal changes.
 *
 * @param fallback - Given until the server has sent a value; `null` from the server is a value.
 */
export function useSignal(name: string, fallback: number): number;
export function useSignal(name: string, fallback: string): string;
export function useSignal(name: string, fallback: boolean): boolean;
export function useSignal<T>(name: string, fallback: T): T;
export function useSignal<T = unknown>(name: string): T | undefined;
export function useSignal(name: string, fallback?: unknown): unknown {
  const client = useCacao();
  const subscribe = useCallback(
    (listener: () => void) => client.subscribe(name, listener),
    [client, name],
  );
  const get = () => client.get(name);
  return withFallback(useSyncExternalStore(subscribe, get, get), fallback);
}

/** Not `??`: `null` is a value, the server's None. */
function withFallback(value: unknown, fallback: unknown): unknown {
  return value === undefined ? fallback : value;
}

/** What is known of a resource: a value that the server fetches, and fetches anew. */
export interface Resource<T> {
  /** What was fetched last, also while something newer is; `null` before that. */
  readonly value: T | null;
  readonly isLoading: boolean;
  /** Why the last attempt failed; `null` if it did not. */
  readonly error: ResourceError | null;
}

export interface ResourceError {
  readonly message: string;
  /** What finds the error in the server's log. */
  readonly errorId: string;
}

const UNKNOWN: Resource<never> = { value: null, isLoading: true, error: null };

/** A server's resource; the component renders when it changes. Loading until the server has spoken. */
export function useResource<T = unknown>(name: string): Resource<T> {
  return useSignal<Resource<T>>(name, UNKNOWN);
}

/** The current status; the component renders when it changes. */
export function useConnectionStatus(): ConnectionStatus {
  return useStatus((client) => client.status);
}

/** The public name of the session; `null` before the first connection. */
export function useSessionId(): string | null {
  return useStatus((client) => client.sessionId);
}

export function useIsConnected(): boolean {
  return useStatus((client) => client.status === "connected");
}

/**
 * What became of the session when it was last taken up again, after a loss of the connection or a
 * reload of the page: `resumed` and `rebuilt` mean that it goes on, `fresh` that it is gone and a
 * new one has begun, which the page may want to say. `null` if that was never tried.
 */
export function useSessionOutcome(): Outcome | null {
  return useStatus((client) => client.outcome);
}

function useStatus<T>(read: (client: CacaoClient) => T): T {
  const client = useCacao();
  const subscribe = useCallback(
    (listener: () => void) => client.subscribeStatus(listener),
    [client],
  );
  const get = () => read(client);
  return useSyncExternalStore(subscribe, get, get);
}

// --- Events -----------------------------------------------------------------------------------

/**
 * Sends one event. It may be given to `onClick` and the like as it is: an event of React's is not
 * taken for data. See `CacaoClient.send` for what the promise does.
 */
export type Dispatch<T extends EventData> = (data?: T | SyntheticEvent) => Promise<Result>;

/** A function that sends the event `name`; the same one at every render. */
export function useEvent<T extends EventData = Record<string, unknown>>(name: string): Dispatch<T> {
  const client = useCacao();
  return useCallback(
    (data) => client.send(name, isReactEvent(data) ? undefined : data),
    [client, name],
  );
}

function isReactEvent(data: object | undefined): data is SyntheticEvent {
  return data !== undefined && "nativeEvent" in data;
}

// --- Fields -----------------------------------------------------------------------------------

export interface FieldOptions {
  /** The event that carries `{ value }` to the server. Default: the signal's name and `:input`. */
  event?: string;
}

export interface InputField {
  value: string;
  onChange: (event: ChangeEvent<HTMLInputElement | HTMLTextAreaElement>) => void;
  /** The server has refused what is in the field. */
  "aria-invalid": boolean;
}

export interface SelectField {
  value: string;
  onChange: (event: ChangeEvent<HTMLSelectElement>) => void;
  "aria-invalid": boolean;
}

export interface CheckboxField {
  checked: boolean;
  onChange: (event: ChangeEvent<HTMLInputElement>) => void;
  "aria-invalid": boolean;
}

export interface SwitchField extends CheckboxField {
  role: "switch";
}

/**
 * Props that bind an `<input>` or `<textarea>` to a signal: `<input {...useSignalInput("name")} />`.
 *
 * While somebody types, the field is theirs: it shows the server's value again when the server is
 * done with the last keystroke. Numbers are sent as numbers if `fallback` is one, or the input's
 * type is `number` or `range`; an empty one is sent as `null`.
 */
export function useSignalInput(
  name: string,
  fallback: string | number = "",
  options: FieldOptions = {},
): InputField {
  const { value, isRefused, change } = useField(name, fallback, options);
  return {
    value: toText(value),
    onChange: ({ target }) => change(target.value, toWire(target, fallback)),
    "aria-invalid": isRefused,
  };
}

/** Props that bind a `<select>` to a signal; a number is sent if `fallback` is one. */
export function useSignalSelect(
  name: string,
  fallback: string | number = "",
  options: FieldOptions = {},
): SelectField {
  const { value, isRefused, change } = useField(name, fallback, options);
  return {
    value: toText(value),
    onChange: ({ target }) => change(target.value, toWire(target, fallback)),
    "aria-invalid": isRefused,
  };
}

/** Props that bind an `<input type="checkbox">` to a signal. */
export function useSignalCheckbox(
  name: string,
  fallback = false,
  options: FieldOptions = {},
): CheckboxField {
  const { value, isRefused, change } = useField(name, fallback, options);
  return {
    checked: value === true,
    onChange: ({ target }) => change(target.checked, target.checked),
    "aria-invalid": isRefused,
  };
}

/** Like `useSignalCheckbox`, for a checkbox that is told to assistive technology as a switch. */
export function useSignalSwitch(
  name: string,
  fallback = false,
  options: FieldOptions = {},
): SwitchField {
  return { role: "switch", ...useSignalCheckbox(name, fallback, options) };
}

/** What somebody has put into a field, as it was typed. */
interface Draft {
  readonly value: unknown;
  /** What the server has said to it; until then it stays whatever the signal does. */
  readonly answer?: {
    readonly isRefused: boolean;
    /** The signal's value at the answer: the draft stays as long as the signal does. */
    readonly over: unknown;
  };
}

function useField(name: string, fallback: unknown, { event = `${name}:input` }: FieldOptions) {
  const client = useCacao();
  const current = useSignal<unknown>(name);
  const [draft, setDraft] = useState<Draft | null>(null);

  const change = (value: unknown, wireValue: unknown) => {
    const mine: Draft = { value };
    const answer = (isRefused: boolean) => {
      const over = client.get(name);
      // A text that says what the signal says stays as it was typed: "1." is on its way to "1.5".
      const next =
        isRefused || Object.is(over, wireValue) ? { value, answer: { isRefused, over } } : null;
      // Only the answer to the last keystroke counts; those to earlier ones are stale.
      setDraft((now) => (now === mine ? next : now));
    };
    setDraft(mine);
    client.send(event, { value: wireValue }).then(
      () => answer(false),
      (error: EventError) => answer(error.code === "invalid_data"),
    );
  };

  const isOver = draft?.answer !== undefined && !Object.is(draft.answer.over, current);
  if (isOver) setDraft(null); // for good: the signal may come back to the value it had
  const shown = isOver ? null : draft;
  return {
    value: shown === null ? withFallback(current, fallback) : shown.value,
    isRefused: shown?.answer?.isRefused ?? false,
    change,
  };
}

function toText(value: unknown): string {
  return value === null || value === undefined ? "" : String(value);
}

function toWire(target: { type: string; value: string }, fallback: string | number) {
  const isNumeric = target.type === "number" || target.type === "range";
  return isNumeric || typeof fallback === "number" ? toNumber(target.value) : target.value;
}

/** The number that a text says; a text that says none goes to the server, which refuses it. */
function toNumber(text: string): number | string | null {
  if (text.trim() === "") return null;
  const value = Number(text);
  return Number.isNaN(value) ? text : value;
}

// --- Forms ------------------------------------------------------------------------------------

export type FormValues = Record<string, string | number | boolean>;

type FormField<T> = { name: string } & (T extends boolean ? CheckboxField : FormInputField);

export interface FormInputField {
  value: string;
  onChange: (
    event: ChangeEvent<HTMLInputElement | HTMLTextAreaElement | HTMLSelectElement>,
  ) => void;
  "aria-invalid": boolean;
}

export interface SignalForm<T extends FormValues> {
  /** Props for each field's element: `<input {...form.fields.name} />`. */
  fields: { [Name in keyof T]: FormField<T[Name]> };
  values: T;
  setValue: <Name extends keyof T & string>(name: Name, value: T[Name]) => void;
  /** What the server found wrong with a field; gone when the field is changed. */
  errors: Partial<Record<keyof T, string>>;
  /** Why the last submission failed, be it for a field or not. */
  error: EventError | null;
  isSubmitting: boolean;
  /** Sends the values. While a submission is under way, returns that one. */
  submit: (event?: string) => Promise<Result>;
  /** For `<form onSubmit>`. */
  handleSubmit: (event?: FormEvent) => void;
}

/**
 * Several fields that are sent together, as the data of one event.
 *
 * A field shows the signal of its name, or its default where there is none, until somebody changes
 * it. After a submission that went well the fields show those again.
 *
 * @param defaults - One entry a field; the set of names is taken from the first render.
 */
export function useSignalForm<T extends FormValues>(
  defaults: T,
  event = "form:submit",
): SignalForm<T> {
  const client = useCacao();
  const [names] = useState(() => Object.keys(defaults));
  const signals = useSignals(names);
  const [drafts, setDrafts] = useState<Readonly<Record<string, unknown>>>({});
  const [failed, setFailed] = useState<FailedSubmission | null>(null);
  const [isSubmitting, once] = useOneAtATime<Result>();

  const shown = (name: string) => drafts[name] ?? signals.get(name) ?? defaults[name];
  const setValue = (name: string, value: unknown) =>
    setDrafts((now) => ({ ...now, [name]: value }));
  const values = toValues(defaults, shown);
  const errors = fieldErrors(failed, values);
  const submit = (name?: unknown) =>
    once(() => {
      setFailed(null);
      // Anything but a name is React's event: `onClick={form.submit}`.
      const sent = client.send(typeof name === "string" ? name : event, values);
      sent.then(
        // What was changed in the meantime is kept.
        () => setDrafts((now) => (now === drafts ? {} : now)),
        (error: EventError) => setFailed({ error, values }),
      );
      return sent;
    });

  const field = (name: string) => ({
    name,
    "aria-invalid": name in errors,
    ...(typeof defaults[name] === "boolean"
      ? {
          checked: shown(name) === true,
          onChange: ({ target }: ChangeEvent<HTMLInputElement>) => setValue(name, target.checked),
        }
      : {
          value: toText(shown(name)),
          onChange: ({ target }: Parameters<FormInputField["onChange"]>[0]) =>
            setValue(name, target.value),
        }),
  });

  return {
    fields: fromNames(names, field) as SignalForm<T>["fields"],
    values: values as T,
    setValue,
    errors: errors as SignalForm<T>["errors"],
    error: failed?.error ?? null,
    isSubmitting,
    submit,
    handleSubmit: (submission) => {
      submission?.preventDefault();
      submit();
    },
  };
}

interface FailedSubmission {
  readonly error: EventError;
  readonly values: Record<string, unknown>;
}

/** What each field of a form holds, a number where its default is one. */
function toValues(defaults: FormValues, shown: (name: string) => unknown): Record<string, unknown> {
  return fromNames(Object.keys(defaults), (name) =>
    typeof defaults[name] === "number" ? toNumber(toText(shown(name))) : shown(name),
  );
}

/** The first complaint about each field that still holds what was complained about. */
function fieldErrors(
  failed: FailedSubmission | null,
  values: Record<string, unknown>,
): Record<string, string> {
  const errors: Record<string, string> = {};
  for (const { path, message } of failed?.error.details ?? []) {
    const name = String(path[0]);
    if (Object.is(values[name], failed?.values[name])) errors[name] ??= message;
  }
  return errors;
}

function fromNames<T>(names: readonly string[], make: (name: string) => T): Record<string, T> {
  return Object.fromEntries(names.map((name) => [name, make(name)]));
}

/** Runs one task at a time: whoever asks while one is under way gets that one's promise. */
function useOneAtATime<T>(): [isBusy: boolean, run: (start: () => Promise<T>) => Promise<T>] {
  const underWay = useRef<Promise<T> | null>(null);
  const [isBusy, setIsBusy] = useState(false);
  const run = (start: () => Promise<T>) => {
    if (underWay.current !== null) return underWay.current;
    const finish = () => {
      underWay.current = null;
      setIsBusy(false);
    };
    const task = start();
    task.then(finish, finish);
    underWay.current = task;
    setIsBusy(true);
    return task;
  };
  return [isBusy, run];
}

/** The signals of a fixed list of names that the server has sent. */
function useSignals(names: readonly string[]): ReadonlyMap<string, unknown> {
  const client = useCacao();
  const seen = useRef<ReadonlyMap<string, unknown>>(new Map());
  const subscribe = useCallback(
    (listener: () => void) => {
      const stops = names.map((name) => client.subscribe(name, listener));
      return () => {
        for (const stop of stops) stop();
      };
    },
    [client, names],
  );
  const get = () => {
    // React compares by identity: the same map as long as the same values are in it.
    if (names.some((name) => !Object.is(client.get(name), seen.current.get(name)))) {
      seen.current = new Map(names.map((name) => [name, client.get(name)]));
    }
    return seen.current;
  };
  return useSyncExternalStore(subscribe, get, get);
}
