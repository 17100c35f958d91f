// What the page asks the server for. Nothing is fetched from anywhere else.

let key = sessionStorage.getItem("key") ?? "";

export function setKey(value) {
  key = value.trim();
  sessionStorage.setItem("key", key);
}

async function request(path, options = {}) {
  const headers = { "Content-Type": "application/json" };
  if (key) headers.Authorization = `Bearer ${key}`;
  let response;
  try {
    response = await fetch(path, { ...options, headers });
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new Error("The server does not answer. Is molt serve still running?");
  }
  if (response.ok) return response;
  if (response.status === 401) throw new Error("The server wants a key: put it into the settings.");
  const body = await response.json().catch(() => ({}));
  throw new Error(body.error?.message ?? `The server answers with status ${response.status}.`);
}

export async function get(path) {
  return (await request(path)).json();
}

export async function post(path, body, signal) {
  return (await request(path, { method: "POST", body: JSON.stringify(body), signal })).json();
}

// Events of one answer: {state, fingerprint}, then {text} for each piece, then {reason}.
export async function* answer(body, signal) {
  const options = { method: "POST", body: JSON.stringify({ ...body, stream: true }), signal };
  const response = await request("/v1/chat/completions", options);
  let isFirst = true;
  for await (const chunk of events(response.body)) {
    if (chunk.error) throw new Error(chunk.error.message);
    if (isFirst) yield { state: chunk.model, fingerprint: chunk.system_fingerprint };
    isFirst = false;
    const choice = chunk.choices[0];
    if (choice?.delta.content) yield { text: choice.delta.content };
    if (choice?.finish_reason) yield { reason: choice.finish_reason };
  }
}

async function* events(stream) {
  const reader = stream.pipeThrough(new TextDecoderStream()).getReader();
  let rest = "";
  for (;;) {
    const { done, value } = await reader.read();
    if (done) return;
    const parts = (rest + value).split("\n\n");
    rest = parts.pop();
    for (const part of parts) {
      const data = part.replace(/^data: /, "");
      if (data === "[DONE]") return;
      yield JSON.parse(data);
    }
  }
}
