// The server's API: requests, the key, and errors in OpenAI's shape.

import { events } from "./stream.js";

/** What the server said no with, or why it could not be asked. */
export class ApiError extends Error {
  /**
   * @param {number} status HTTP status; 0 when there was no answer
   * @param {{message?: string, type?: string, param?: string | null, code?: string | null}} detail
   * @param {number | null} [retryAfterS]
   */
  constructor(status, detail, retryAfterS = null) {
    super(detail.message || `the server answered ${status}`);
    this.name = "ApiError";
    this.status = status;
    this.type = detail.type ?? null;
    this.param = detail.param ?? null;
    this.code = detail.code ?? null;
    this.retryAfterS = retryAfterS;
  }
}

export class Api {
  /** @param {string | null} key sent as a bearer token, if there is one */
  constructor(key = null) {
    this.key = key;
  }

  /** The model, its adapters, what the server allows. @returns {Promise<any>} */
  async props() {
    return (await this.#send("GET", "/props")).json();
  }

  /** Prometheus text. @returns {Promise<string>} */
  async metrics() {
    return (await this.#send("GET", "/metrics")).text();
  }

  /**
   * A chat completion as its chunks come. Ends after `[DONE]`; throws when the connection ends before it.
   * @param {object} body
   * @param {AbortSignal} signal
   * @returns {AsyncGenerator<any>}
   */
  async *chat(body, signal) {
    const response = await this.#send("POST", "/v1/chat/completions", body, signal);
    if (!response.body) throw new ApiError(response.status, { message: "the server sent no stream" });
    for await (const data of events(response.body)) {
      if (data === "[DONE]") return;
      const chunk = JSON.parse(data);
      if (chunk.error) throw new ApiError(response.status, chunk.error);
      yield chunk;
    }
    throw new ApiError(0, { message: "the connection ended before the answer did" });
  }

  /**
   * Closes the thoughts that are open now; the answers follow in the stream.
   * @param {string} id the completion's id
   * @param {number | null} index one choice, or all
   * @returns {Promise<number>} how many were closed
   */
  async endThought(id, index = null) {
    const path = `/v1/chat/completions/${encodeURIComponent(id)}/end_thought`;
    return (await (await this.#send("POST", path, { index })).json()).ended;
  }

  /**
   * @param {string} method
   * @param {string} path
   * @param {object} [body]
   * @param {AbortSignal} [signal]
   */
  async #send(method, path, body, signal) {
    /** @type {Record<string, string>} */
    const headers = {};
    if (body) headers["content-type"] = "application/json";
    if (this.key) headers.authorization = `Bearer ${this.key}`;
    let response;
    try {
      response = await fetch(path, { method, headers, signal, body: body && JSON.stringify(body), cache: "no-store" });
    } catch (error) {
      if (signal?.aborted) throw error;
      throw new ApiError(0, { message: "the server does not answer" });
    }
    if (!response.ok) throw await refusal(response);
    return response;
  }
}

/** @param {Response} response */
async function refusal(response) {
  const text = await response.text().catch(() => "");
  const retry = Number.parseInt(response.headers.get("retry-after") ?? "", 10);
  let detail = { message: text.slice(0, 300) };
  try {
    detail = JSON.parse(text).error ?? detail;
  } catch {
    // Not JSON: a proxy in between. Its text is the message.
  }
  return new ApiError(response.status, detail, Number.isFinite(retry) ? retry : null);
}
