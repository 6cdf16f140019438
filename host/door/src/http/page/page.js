// Shows a newer page when the host says that there is one. Without this script the page is whole, too.
const live = document.getElementById("live");
const AGAIN_MS = 30000;
let busy = false;
let wanted = null;

function say(text, state) {
  if (live.textContent !== text) live.textContent = text;
  live.className = state;
}

async function refresh() {
  if (busy) return;
  busy = true;
  try {
    while (wanted !== document.querySelector("main").dataset.mark) {
      const goal = wanted;
      const answer = await fetch(location.pathname, { cache: "no-store", headers: { accept: "text/html" } });
      if (!answer.ok) throw new Error(`the host answers with ${answer.status}`);
      const page = new DOMParser().parseFromString(await answer.text(), "text/html");
      show(page);
      if (wanted === goal) break;
    }
  } catch (error) {
    say(`Not live: ${error.message}. Reload the page.`, "off");
  } finally {
    busy = false;
  }
}

// Keeps the focus and what was scrolled where they were.
function show(page) {
  const old = document.querySelector("main");
  const boxes = () => [...document.querySelectorAll("main .scroll")];
  const scrolled = boxes().map((box) => box.scrollLeft);
  const focused = boxes().indexOf(document.activeElement);
  old.replaceWith(document.adoptNode(page.querySelector("main")));
  document.title = page.title;
  boxes().forEach((box, index) => { box.scrollLeft = scrolled[index] ?? 0; });
  boxes()[focused]?.focus({ preventScroll: true });
}

function follow() {
  const events = new EventSource("events");
  events.addEventListener("change", (event) => {
    say("Live", "on");
    wanted = event.data;
    refresh();
  });
  events.addEventListener("error", () => {
    say("Not live: the host does not answer.", "off");
    // The browser itself connects again, unless the host refused.
    if (events.readyState === EventSource.CLOSED) setTimeout(follow, AGAIN_MS);
  });
}

follow();
