// Votes between two states whose names are hidden until the vote.

import { post } from "./api.js";
import { fromTemplate } from "./cards.js";

let votes = { pair: "", wins: 0, losses: 0, ties: 0 };

// The order in which two answers are shown, drawn anew for each question.
export function randomOrder() {
  return crypto.getRandomValues(new Uint8Array(1))[0] & 1 ? [0, 1] : [1, 0];
}

// Lets the user vote; resolves with the place of the better answer, null for no difference, undefined for no vote.
export function vote(turn, signal) {
  const bar = fromTemplate("vote");
  turn.append(bar);
  bar.firstElementChild.focus();
  return new Promise((resolve) => {
    signal.addEventListener("abort", () => {
      bar.remove();
      resolve(undefined);
    });
    bar.addEventListener("click", (event) => {
      const button = event.target.closest("button");
      if (!button) return;
      bar.remove();
      resolve(button.value === "" ? null : Number(button.value));
    });
  });
}

// Counts a vote between two labels, of which `winner` (0, 1 or null) is better, and returns the running score.
export async function count(labels, winner) {
  const pair = JSON.stringify(labels);
  if (votes.pair !== pair) votes = { pair, wins: 0, losses: 0, ties: 0 };
  if (winner === 0) votes.wins += 1;
  else if (winner === 1) votes.losses += 1;
  else votes.ties += 1;
  const score = await post("/molt/score", { wins: votes.wins, losses: votes.losses });
  const percent = (share) => Math.round(100 * share);
  const ties = votes.ties ? `; ${votes.ties} without a difference, not counted` : "";
  if (!score.n) return `${labels[0]} against ${labels[1]}: no vote yet${ties}`;
  const interval = `${percent(score.mean)}%, 95% interval ${percent(score.low)} to ${percent(score.high)}`;
  return `${labels[0]} won ${votes.wins} of ${score.n} against ${labels[1]} (${interval})${ties}`;
}
