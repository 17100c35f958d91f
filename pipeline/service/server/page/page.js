// The page: which states answer, the conversation, and what is sent.

import { answer, get, setKey } from "./api.js";
import { count, randomOrder, vote } from "./blind.js";
import { Card, fromTemplate } from "./cards.js";

const byId = (id) => document.getElementById(id);
const COUNTS = { chat: [1, 1], compare: [2, 6], blind: [2, 2] };
const ABOUT = {
  chat: "",
  compare: "Each state has a conversation of its own.",
  blind: "Two answers in random order; their names are shown after your vote. Each question stands alone.",
};

let about = { models: [], default: "", keeps: false, has_scale: false };
let columns = [];
let mode = "chat";
let running = null;

async function begin() {
  try {
    about = await get("/molt/about");
    byId("notice").textContent = "";
  } catch (error) {
    byId("notice").textContent = error.message;
    byId("settings").open = true;
    return;
  }
  setMode(mode);
}

// --- which states answer

function setMode(value) {
  mode = value;
  const [fewest, most] = COUNTS[mode];
  columns = columns.slice(0, most);
  while (columns.length < fewest) addColumn();
  drawColumns();
  forget();
}

function addColumn() {
  const used = columns.map((column) => column.state);
  const names = [about.default, ...about.models];
  columns.push({ state: names.find((name) => !used.includes(name)) ?? about.default, scale: 1, history: [] });
}

function drawColumns() {
  const [fewest, most] = COUNTS[mode];
  byId("columns").replaceChildren(...columns.map((column) => columnElement(column, columns.length > fewest)));
  byId("add").hidden = columns.length >= most;
}

function columnElement(column, isRemovable) {
  const element = fromTemplate("column");
  const select = element.querySelector("select"), slider = element.querySelector("input");
  select.append(...about.models.map((name) => new Option(name, name, false, name === column.state)));
  const strength = element.querySelector(".strength");
  const show = () => {
    strength.classList.toggle("idle", column.state === "base"); // which has no adapters
    strength.querySelector(".value").textContent = column.scale.toFixed(2);
  };
  select.addEventListener("change", () => {
    column.state = select.value;
    show();
  });
  slider.value = column.scale;
  slider.addEventListener("input", () => {
    column.scale = Number(slider.value);
    show();
  });
  strength.hidden = !about.has_scale;
  const remove = element.querySelector(".remove");
  remove.hidden = !isRemovable;
  remove.addEventListener("click", () => {
    columns = columns.filter((each) => each !== column);
    drawColumns();
    byId("add").focus();
  });
  show();
  return element;
}

function label(column) {
  return column.state === "base" || column.scale === 1 ? column.state : `${column.state} at ${column.scale.toFixed(2)}`;
}

// --- the conversation

function forget() {
  running?.abort();
  for (const column of columns) column.history = [];
  byId("turns").replaceChildren();
  byId("score").textContent = "";
  const stored = about.keeps && mode === "chat"
    ? "Conversations are written down for the next retraining, redacted."
    : "Only answers that you mark or edit are written down, for the next retraining.";
  byId("about").textContent = [ABOUT[mode], mode === "blind" ? "Nothing is written down." : stored].join(" ").trim();
}

async function ask(text) {
  const turn = fromTemplate("turn");
  turn.querySelector(".question").textContent = text;
  byId("turns").append(turn);
  running = new AbortController();
  busy(true);
  try {
    await (mode === "blind" ? askBlind(turn, text) : askAll(turn, text));
  } finally {
    running = null;
    busy(false);
  }
  byId("text").focus();
}

async function askAll(turn, text) {
  await Promise.all(columns.map(async (column) => {
    const card = new Card(label(column));
    turn.querySelector(".answers").append(card.element);
    const prompt = [...column.history, { role: "user", content: text }];
    const isWhole = await reply(card, column, prompt, mode === "chat" ? undefined : false, true);
    if (!card.text || !turn.isConnected) return; // nothing was said, or the conversation was left
    const said = { role: "assistant", content: card.text };
    column.history = [...prompt, said];
    if (isWhole) card.offer(prompt, (better) => { said.content = better; });
  }));
  toEnd();
}

async function askBlind(turn, text) {
  const pair = [...columns], order = randomOrder();
  const cards = order.map((_, place) => new Card(`Answer ${place + 1}`));
  turn.querySelector(".answers").append(...cards.map((card) => card.element));
  toEnd();
  const prompt = [{ role: "user", content: text }];
  const isWhole = await Promise.all(cards.map((card, place) => reply(card, pair[order[place]], prompt, false, false)));
  cards.forEach((card) => card.end(card.part(".note").textContent));
  if (!isWhole.every(Boolean)) return;
  toEnd();
  if (cards[0].text === cards[1].text) {
    cards.forEach((card) => card.note("Both said the same."));
    return;
  }
  byId("stop").hidden = true;
  byId("text").placeholder = "Vote first";
  const best = await vote(turn, running.signal);
  if (best === undefined) return;
  cards.forEach((card, place) => {
    card.part("h2").textContent = label(pair[order[place]]);
    card.element.classList.toggle("best", place === best);
  });
  byId("score").textContent = await count(pair.map(label), best === null ? null : order[best]);
}

// Fill a card with an answer, as it comes or once it is there. Returns whether it came to its end.
async function reply(card, column, prompt, store, isShown) {
  const system = byId("system").value.trim();
  const body = {
    model: column.state,
    messages: system ? [{ role: "system", content: system }, ...prompt] : prompt,
    temperature: Number(byId("temperature").value),
    max_tokens: Number(byId("tokens").value) || 256,
    store,
  };
  if (about.has_scale && column.scale !== 1 && column.state !== "base") body.adapter_scale = column.scale;
  card.note("Waiting …");
  try {
    for await (const event of answer(body, running.signal)) {
      if (event.state) {
        card.fingerprint = event.fingerprint;
        if (isShown) card.note("");
        if (isShown && event.state !== column.state) card.part("h2").textContent = `${card.title}: ${event.state}`;
      } else if (event.text && isShown) {
        const follows = isAtEnd();
        card.append(event.text);
        if (follows) toEnd();
      } else if (event.text) {
        card.text += event.text;
      } else if (event.reason) {
        const note = event.reason === "length" ? "Cut off at the longest answer." : card.text ? "" : "It said nothing.";
        if (isShown) card.end(note);
        else card.note(note || "Ready.");
        if (isShown) byId("spoken").textContent = `${card.title}: ${card.text}`;
        return true;
      }
    }
    card.end("The answer broke off.", true);
  } catch (error) {
    card.end(error.name === "AbortError" ? "Stopped." : error.message, error.name !== "AbortError");
  }
  return false;
}

function busy(isBusy) {
  byId("send").hidden = isBusy;
  byId("stop").hidden = !isBusy;
  byId("text").placeholder = "Message";
}

function isAtEnd() {
  const log = byId("log");
  return log.scrollHeight - log.scrollTop - log.clientHeight < 80;
}

function toEnd() {
  byId("log").scrollTop = byId("log").scrollHeight;
}

// --- what the user does

byId("ask").addEventListener("submit", (event) => {
  event.preventDefault();
  const text = byId("text").value.trim();
  if (!text || running || !columns.length) return;
  byId("text").value = "";
  resize();
  ask(text);
});
byId("text").addEventListener("keydown", (event) => {
  if (event.key === "Enter" && !event.shiftKey && !event.isComposing) {
    event.preventDefault();
    byId("ask").requestSubmit();
  }
});
byId("text").addEventListener("input", resize);
function resize() {
  const field = byId("text");
  field.rows = Math.min(8, field.value.split("\n").length);
}
byId("stop").addEventListener("click", () => running?.abort());
document.addEventListener("keydown", (event) => {
  if (event.key === "Escape") running?.abort();
});
byId("new").addEventListener("click", () => {
  forget();
  byId("text").focus();
});
byId("add").addEventListener("click", () => {
  addColumn();
  drawColumns();
});
document.querySelectorAll("[name=mode]").forEach((each) => each.addEventListener("change", () => setMode(each.value)));
byId("temperature").addEventListener("input", () => {
  byId("temperature-value").textContent = byId("temperature").value;
});
byId("key").addEventListener("change", () => {
  setKey(byId("key").value);
  begin();
});

begin();
