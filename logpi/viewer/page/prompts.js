// A prompt: plain text, or the messages of a conversation. Left out: the answer.

import { h } from "./dom.js";

export function messages(prompt) {
  if (!Array.isArray(prompt)) return h("pre", { class: "text given" }, prompt ?? "");
  return h("div", { class: "messages" }, prompt.map((message) => h("div", { class: "message" },
    h("span", { class: "role" }, message.role),
    h("pre", { class: "text given" },
      typeof message.content === "string" ? message.content : JSON.stringify(message.content, null, 1)))));
}
