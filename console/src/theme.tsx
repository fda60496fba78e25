// Light, dark, or as the system says.
import { useState } from "preact/hooks";
import { Icon, type IconName } from "./icons";

type Theme = "auto" | "light" | "dark";
const KEY = "callgate-theme";
const choices: [Theme, string, IconName][] = [["auto", "As the system", "auto"], ["light", "Light", "sun"], ["dark", "Dark", "moon"]];

function stored(): Theme {
  try {
    const value = localStorage.getItem(KEY);
    return value === "light" || value === "dark" ? value : "auto";
  } catch {
    return "auto";
  }
}

export function applyTheme(theme: Theme = stored()) {
  if (theme === "auto") delete document.documentElement.dataset.theme;
  else document.documentElement.dataset.theme = theme;
}

export function ThemeSwitch() {
  const [theme, setTheme] = useState(stored);
  const choose = (theme: Theme) => {
    setTheme(theme);
    applyTheme(theme);
    try {
      localStorage.setItem(KEY, theme);
    } catch {
      // Without storage the choice lasts as long as the page.
    }
  };
  return (
    <fieldset class="theme">
      <legend class="visually-hidden">Colours</legend>
      {choices.map(([value, label, icon]) => (
        <label key={value} title={label}>
          <input type="radio" name="theme" class="visually-hidden" checked={theme === value} onChange={() => choose(value)} />
          <Icon name={icon} />
          <span class="visually-hidden">{label}</span>
        </label>
      ))}
    </fieldset>
  );
}
