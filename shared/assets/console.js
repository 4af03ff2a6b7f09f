// What HTML cannot do. Every page works without this file.

const status = document.getElementById("status");

function select(element) {
  const range = document.createRange();
  range.selectNodeContents(element);
  const selection = getSelection();
  selection.removeAllRanges();
  selection.addRange(range);
}

for (const button of document.querySelectorAll("button[data-copy]")) {
  const label = button.firstChild;
  const text = label.data;
  let timer;
  button.hidden = false;
  button.addEventListener("click", async () => {
    const source = document.getElementById(button.dataset.copy);
    try {
      await navigator.clipboard.writeText(source.textContent.trim());
    } catch {
      // The clipboard is refused: leave the text selected for the keyboard.
      select(source);
      return;
    }
    label.data = status.textContent = button.dataset.copied;
    clearTimeout(timer);
    timer = setTimeout(() => {
      label.data = text;
      status.textContent = "";
    }, 2000);
  });
}

for (const button of document.querySelectorAll("button[data-select-all]")) {
  const boxes = document.getElementById(button.dataset.selectAll).querySelectorAll("input[type=checkbox]");
  button.hidden = false;
  button.addEventListener("click", () => {
    const checked = [...boxes].some((box) => !box.checked);
    for (const box of boxes) box.checked = checked;
  });
}

const format = new Intl.DateTimeFormat(document.documentElement.lang, { dateStyle: "medium", timeStyle: "short" });
const zone = new Intl.DateTimeFormat(document.documentElement.lang, { dateStyle: "full", timeStyle: "long" });
for (const time of document.querySelectorAll("time[datetime]")) {
  const at = new Date(time.dateTime);
  // A date without a time means a day of UTC, which must not shift.
  if (!time.dateTime.includes("T") || Number.isNaN(at.valueOf())) continue;
  time.textContent = format.format(at);
  time.title = zone.format(at);
}

for (const form of document.querySelectorAll('form[method="post"]')) {
  form.addEventListener("submit", (event) => {
    if (form.dataset.sent) event.preventDefault();
    form.dataset.sent = "yes";
    for (const button of form.querySelectorAll("button:not([type=button])")) button.setAttribute("aria-disabled", "true");
  });
}

// The browser may restore a page as it was when its form was sent.
addEventListener("pageshow", () => {
  for (const form of document.querySelectorAll("form[data-sent]")) {
    delete form.dataset.sent;
    for (const button of form.querySelectorAll("[aria-disabled]")) button.removeAttribute("aria-disabled");
  }
});
