// Icons of 16 units, drawn with the colour of the text.

const shapes = {
  overview: "M2 9.5 5 6l3 3 5.5-6M2 13.5h12",
  tokens: "M10 2.5a3.5 3.5 0 1 1-2.6 5.9L2.5 13.3M4 11.8l1.7 1.7M10.4 5.9h.1",
  calls: "M2 8h1.5M5 5v6M8 3v10M11 5v6M12.5 8H14",
  traffic: "M2 4h4l4 8h4M10 4h4M2 12h4l1-2M12 2l2 2-2 2M12 10l2 2-2 2",
  configuration: "M2 4.5h6M12 4.5h2M2 11.5h2M8 11.5h6M10 2.7v3.6M6 9.7v3.6",
  audit: "M4 2.5h8v11H4zM6.3 5.5h3.4M6.3 8h3.4M6.3 10.5h2",
  good: "M3.5 8.5 6.5 11.5 12.5 4.8",
  warning: "M8 2.5 14.2 13H1.8zM8 6.5v3M8 11.2v.1",
  close: "M4 4l8 8M12 4l-8 8",
  sun: "M8 5.2a2.8 2.8 0 1 1 0 5.6 2.8 2.8 0 0 1 0-5.6M8 1.5v1.3M8 13.2v1.3M1.5 8h1.3M13.2 8h1.3M3.4 3.4l.9.9M11.7 11.7l.9.9M3.4 12.6l.9-.9M11.7 4.3l.9-.9",
  moon: "M13 9.6A5.5 5.5 0 1 1 6.4 3 4.4 4.4 0 0 0 13 9.6z",
  auto: "M2.5 3h11v7.5h-11zM6 13.5h4M8 10.5v3",
  plus: "M8 3v10M3 8h10",
  copy: "M5.5 5.5h8v8h-8zM3.5 10.5h-1v-8h8v1",
  back: "M9.5 3.5 5 8l4.5 4.5",
  leave: "M9 3H3v10h6M7 8h7M11.5 5.5 14 8l-2.5 2.5",
  search: "M7 2.5a4.5 4.5 0 1 1 0 9 4.5 4.5 0 0 1 0-9M10.4 10.4 13.5 13.5",
  reload: "M13 8a5 5 0 1 1-1.5-3.6L13 6M13 2.5V6H9.5",
  empty: "M2.5 9 4.5 3h7l2 6v4h-11zM2.5 9h3.2l1 1.8h2.6l1-1.8h3.2",
};

export type IconName = keyof typeof shapes;

export function Icon({ name }: { name: IconName }) {
  return (
    <svg class="icon" viewBox="0 0 16 16" width="16" height="16" aria-hidden="true" focusable="false">
      <path d={shapes[name]} />
    </svg>
  );
}

export function Logo() {
  return (
    <svg class="logo" viewBox="0 0 16 16" width="24" height="24" aria-hidden="true" focusable="false">
      <rect width="16" height="16" rx="4" />
      <path d="M4 12V7a4 4 0 0 1 8 0v5M8 12V8" />
    </svg>
  );
}
