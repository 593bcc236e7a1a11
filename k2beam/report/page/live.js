"use strict";
// Of a served page: asks for new contents again and again, and says so when none come.
(() => {
  const every = Number(document.documentElement.dataset.every);
  if (!every) return;
  const state = (text) => { if (page.node("state").textContent !== text) page.tell("state", text); };

  const ask = async () => {
    try {
      const answer = await fetch("contents.json", { cache: "no-store" });
      if (!answer.ok) throw new Error(`answer ${answer.status}`);
      const contents = await answer.json();
      const changed = contents.made_at !== page.contents.made_at;
      page.contents = contents;
      if (changed) page.draw();
      state(contents.problem ? `Not read since ${page.moment(contents.made_at)}: ${contents.problem}` : "");
    } catch (error) {
      state(`No answer since ${page.moment(page.contents.made_at)}: is k2beam serve running?`);
    }
    setTimeout(ask, every);
  };
  setTimeout(ask, every);
})();
