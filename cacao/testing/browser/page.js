// Stands in each page of a browser test before the page's own code, as a debugger would: keeps what
// the page's clients send and receive, and fails as a network does. `page_line.py` calls it with
// what the page's connections are called, and in which parameter of their query they say so.

(mark, parameter) => {
  const RealSocket = WebSocket;
  const BROKEN = 1006;

  const clients = new Set();
  /** What happened since the last look, in order. */
  let news = [];
  const sockets = [];
  /** Of the network, as the test wants it. */
  let isDown = false;
  let isSilent = false;
  let framesLeft = Infinity;
  let copies = 1;

  /** A socket of a client; counts as `NearEnd` of `far_end.py`. */
  class Socket {
    onopen = null;
    onmessage = null;
    onclose = null;
    #real = null;

    constructor(url, protocol) {
      // A reloaded page counts anew, and must not take up an older name.
      this.mark = `${mark}.${performance.timeOrigin}.${sockets.length}`;
      this.sent = 0;
      this.came = 0;
      this.isListening = true;
      this.isOver = false;
      this.isForgotten = false;
      if (isDown) {
        this.isOver = true;
        setTimeout(() => this.#end(BROKEN, ""));
      } else {
        this.#open(url, protocol);
      }
      sockets.push(this);
    }

    #open(url, protocol) {
      const marked = new URL(url);
      marked.search += `${marked.search ? "&" : ""}${parameter}=${this.mark}`;
      const real = new RealSocket(marked, protocol);
      real.onopen = () => {
        this.came += 1;
        this.onopen?.();
      };
      real.onmessage = ({ data }) => {
        this.came += 1;
        news.push(["received", data]);
        this.onmessage?.({ data });
        framesLeft -= 1;
        if (framesLeft <= 0) harness.drop(0, isSilent);
      };
      real.onclose = ({ code, reason }) => {
        this.isOver = true;
        this.#end(code, reason);
      };
      this.#real = real;
    }

    #end(code, reason) {
      if (!this.isListening) return;
      this.isListening = false;
      this.onclose?.({ code, reason });
    }

    send(text) {
      news.push(["sent", text]);
      for (let copy = 0; copy < copies; copy += 1) {
        this.sent += 1;
        this.#real?.send(text);
      }
    }

    close(code, reason) {
      this.#hangUp(code, reason);
    }

    /** Ends it here; the server notices, or does not. */
    break(isSilent) {
      if (!this.isListening) return;
      if (this.#real !== null) {
        this.#real.onopen = this.#real.onmessage = null;
        if (isSilent) this.isForgotten = true;
        else this.#hangUp();
      }
      this.#end(BROKEN, "");
    }

    #hangUp(...why) {
      if (this.#real === null || this.isOver) return;
      this.sent += 1;
      this.#real.close(...why);
    }

    get counts() {
      const { mark, sent, came, isListening, isOver } = this;
      return { mark, sent, came, isListening, isOver };
    }
  }

  const newest = () => [...clients].at(-1);

  const harness = {
    /** Sends an event; how it ends becomes news. */
    send(number, name, data) {
      newest()
        .send(name, data)
        .then(
          (result) => news.push(["result", number, result]),
          ({ code, message, details, errorId }) =>
            news.push(["result", number, { ok: false, code, message, details, errorId }]),
        );
    },

    /** Sends a text as it is, past the client. */
    sendText(text) {
      sockets.at(-1).send(text);
    },

    /** Those of `names` that have a value, with it. */
    values: (names) =>
      names.map((name) => [name, newest()?.get(name)]).filter(([, value]) => value !== undefined),

    drop(afterFrames, silently) {
      framesLeft = afterFrames;
      isSilent = silently;
      if (afterFrames > 0) return;
      isDown = true;
      for (const socket of sockets) socket.break(silently);
    },

    restore() {
      framesLeft = Infinity;
      copies = 1;
      if (!isDown) return;
      isDown = false;
      dispatchEvent(new Event("online")); // what a browser says when the network is back
    },

    duplicate() {
      copies = 2;
    },

    leave() {
      for (const client of clients) client.disconnect();
    },

    /** Tells what happened since the last look, and how all stands now. */
    look() {
      const told = news;
      news = [];
      const client = newest();
      return {
        news: told,
        sockets: sockets.filter(({ isForgotten }) => !isForgotten).map(({ counts }) => counts),
        status: client?.status ?? null,
        closing: client?.closing ?? null,
        outcome: client?.outcome ?? null,
      };
    },
  };

  globalThis.__cacao__ = clients;
  globalThis.__cacaoTest__ = harness;
  globalThis.WebSocket = new Proxy(RealSocket, {
    construct: (Real, [url, protocol]) =>
      protocol === "cacao.v1" ? new Socket(url, protocol) : new Real(url, protocol),
  });
};
